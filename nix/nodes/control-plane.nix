# A K3s server with etcd, and the parts of the cluster that are no work of ours: ingress-nginx and
# cert-manager. The first server founds the cluster, others join it.
{
  cluster,
  host,
  hostName,
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (cluster) network;
  servers = lib.filterAttrs (_: h: h.role == "control-plane") cluster.hosts;
  first = lib.head (lib.attrNames servers);
  founds = hostName == first;

  chart =
    name: values:
    let
      pinned = cluster.charts.${name};
    in
    {
      apiVersion = "helm.cattle.io/v1";
      kind = "HelmChart";
      metadata = {
        inherit name;
        namespace = "kube-system";
      };
      spec = {
        chart = name;
        inherit (pinned) repo version;
        targetNamespace = name;
        createNamespace = true;
        failurePolicy = "abort"; # an upgrade that failed is looked at, not uninstalled
        valuesContent = builtins.toJSON values;
      };
    };
in
{
  imports = [
    ./k3s.nix
    ./etcd-snapshots.nix
  ];

  services.k3s = {
    role = "server";
    clusterInit = founds;
    serverAddr = lib.mkIf (!founds) "https://${servers.${first}.private}:6443";
    disable = [
      "traefik" # ingress-nginx is
      "servicelb" # ingress-nginx has the ports of the workers itself
    ];
    nodeTaint = [ "node-role.kubernetes.io/control-plane:NoSchedule" ];
    extraFlags = [
      "--advertise-address=${host.private}"
      "--tls-san=${host.private}"
      "--cluster-cidr=${network.pods}"
      "--service-cidr=${network.services}"
      "--flannel-backend=wireguard-native"
      "--write-kubeconfig-mode=0600"
      "--secrets-encryption" # in etcd, so in its snapshots too
      "--etcd-disable-snapshots" # etcd-snapshots.nix makes them, and says when it failed
    ];

    manifests = lib.mkIf founds {
      ingress-nginx.content = chart "ingress-nginx" {
        controller = {
          kind = "DaemonSet";
          nodeSelector."openclaw.cloud/ingress" = "true";
          # The ports of the node lead to the pod, which is not in the node's network: policies
          # that allow the namespace ingress-nginx hold for it.
          hostPort.enabled = true;
          service.enabled = false;
          publishService.enabled = false;
          ingressClassResource.default = true;
          watchIngressWithoutClass = false;
          allowSnippetAnnotations = false;
          enableAnnotationValidations = true;
          admissionWebhooks.enabled = true;
          # As long as the longest answer may take to end.
          terminationGracePeriodSeconds = 330;
          updateStrategy = {
            type = "RollingUpdate";
            rollingUpdate.maxUnavailable = 1;
          };
          config = {
            worker-shutdown-timeout = "300s";
            server-tokens = "false";
            hide-headers = "Server,X-Powered-By";
            ssl-protocols = "TLSv1.2 TLSv1.3";
            hsts = "true";
            # Addresses of callers are those of their connections: nothing is in front.
            use-forwarded-headers = "false";
            log-format-escape-json = "true";
          };
          resources.requests = {
            cpu = "100m";
            memory = "192Mi";
          };
        };
        defaultBackend.enabled = false;
      };

      cert-manager.content = chart "cert-manager" {
        crds = {
          enabled = true;
          keep = true;
        };
        enableCertificateOwnerRef = true; # a certificate's Secret goes with it
        prometheus.enabled = true;
        resources.requests = {
          cpu = "20m";
          memory = "64Mi";
        };
      };

      # K3s tries again until cert-manager has made this kind known.
      letsencrypt.content = {
        apiVersion = "cert-manager.io/v1";
        kind = "ClusterIssuer";
        metadata.name = "letsencrypt";
        spec.acme = {
          inherit (cluster.acme) server email;
          privateKeySecretRef.name = "letsencrypt-account";
          solvers = [ { http01.ingress.ingressClassName = "nginx"; } ];
        };
      };
    };
  };

  networking.firewall.interfaces = {
    ${network.privateInterface}.allowedTCPPorts = [
      6443
    ]
    # etcd, where there is another server to speak with.
    ++ lib.optionals (lib.length (lib.attrNames servers) > 1) [
      2379
      2380
    ];
    cni0.allowedTCPPorts = [ 6443 ]; # pods of this node, such as DNS
  };

  environment.systemPackages = [ pkgs.kubectl ];
  environment.variables.KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"; # readable for root only

  assertions = [
    {
      assertion = config.services.k3s.clusterInit || config.services.k3s.serverAddr != "";
      message = "${hostName}: a K3s server without etcd would lose its cluster with its disk";
    }
  ];
}
