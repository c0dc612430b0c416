# Who may connect to whom: functions, the argument "flow" of the other modules, and what is so for all
# pods of the platform. Nothing is allowed that no policy names, in either direction.
{ lib, config, workload, ... }:
let
  cfg = config.openclaw;
  name = n: { "app.kubernetes.io/name" = n; };
  space = n: { namespaceSelector.matchLabels."kubernetes.io/metadata.name" = n; };
  ports = map (p: { protocol = "TCP"; port = p; });

  # What is not public in IPv4: this network, private, shared, loopback, link-local (where clouds tell
  # machines their secrets), and what is reserved.
  notPublic = [
    "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "169.254.0.0/16" "172.16.0.0/12"
    "192.0.0.0/24" "192.168.0.0/16" "198.18.0.0/15" "224.0.0.0/4" "240.0.0.0/4"
  ];

  policy = pod: { ingress ? [ ], egress ? [ ], namespace ? "platform" }: {
    metadata = { name = pod; inherit namespace; labels = workload.labels pod; };
    spec = {
      podSelector.matchLabels = name pod;
      policyTypes = [ "Ingress" "Egress" ];
    } // lib.optionalAttrs (ingress != [ ]) { inherit ingress; }
    // lib.optionalAttrs (egress != [ ]) { inherit egress; };
  };

  # For all pods of a namespace: nothing, but for asking the cluster's DNS.
  defaults = namespace: {
    metadata = { name = "default-deny"; inherit namespace; labels = workload.labels "network"; };
    spec = {
      podSelector = { };
      policyTypes = [ "Ingress" "Egress" ];
      egress = [{
        to = [ (space "kube-system" // { podSelector.matchLabels."k8s-app" = "kube-dns"; }) ];
        ports = [ { protocol = "UDP"; port = 53; } { protocol = "TCP"; port = 53; } ];
      }];
    };
  };
in
{
  _module.args.flow = {
    inherit policy defaults;

    # Peers.
    pod = n: { podSelector.matchLabels = name n; };
    podIn = namespace: n: space namespace // { podSelector.matchLabels = name n; };
    controller = space cfg.ingress.namespace // { podSelector.matchLabels = name "ingress-nginx"; };
    prometheus = space "monitoring" // { podSelector.matchLabels = name "prometheus"; };
    # The gateways of all customers, in namespaces that the operator has made.
    boxes = {
      namespaceSelector.matchLabels."app.kubernetes.io/managed-by" = "openclaw-operator";
      podSelector.matchLabels = name "openclaw-gateway";
    };

    # An empty list would mean everyone.
    from = peers: p: assert peers != [ ]; { from = peers; ports = ports p; };
    to = peers: p: assert peers != [ ]; { to = peers; ports = ports p; };
    public = p: { to = [{ ipBlock = { cidr = "0.0.0.0/0"; except = notPublic; }; }]; ports = ports p; };
    postgres = { to = map (cidr: { ipBlock = { inherit cidr; }; }) cfg.network.postgres; ports = ports [ cfg.network.postgresPort ]; };
    apiServer = { to = map (cidr: { ipBlock = { inherit cidr; }; }) cfg.network.apiServer; ports = ports [ cfg.network.apiServerPort ]; };
  };

  kubernetes.resources.networkPolicies.platform-default-deny = defaults "platform";

  # cert-manager proves that a name is ours by a pod of its own beside the Ingress.
  kubernetes.resources.networkPolicies.acme-solver = {
    metadata = { name = "acme-solver"; namespace = "platform"; labels = workload.labels "network"; };
    spec = {
      podSelector.matchLabels."acme.cert-manager.io/http01-solver" = "true";
      policyTypes = [ "Ingress" ];
      ingress = [{
        from = [ (space cfg.ingress.namespace // { podSelector.matchLabels = name "ingress-nginx"; }) ];
        ports = ports [ 8089 ];
      }];
    };
  };
}
