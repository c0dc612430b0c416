# The operator of the boxes. What it may do in the cluster is not written here: operator-access.json is
# what "control operator access" prints, and a test says when it is not (test/manifests).
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw;
  o = cfg.operator;
  control = import ./control.nix { inherit workload; };
  gateway = registry: "${registry}/openclaw-gateway";

  # The policy has the gateway's image as a regular expression, in JSON.
  pattern = builtins.replaceStrings [ "." ] [ "\\\\." ];
  access = builtins.fromJSON (builtins.replaceStrings
    [ "^${pattern (gateway "ghcr.io/andreabadesso/openclaw-cloud")}@" ]
    [ "^${pattern (gateway cfg.registry)}@" ]
    (builtins.readFile ./operator-access.json));
in
{
  kubernetes.objects = access;

  kubernetes.resources = {
    deployments.operator = workload.deployment {
      name = "operator";
      replicas = o.replicas; # one of them leads
      strategy.type = "Recreate"; # one of an older release must not report behind a migration
      pod = {
        annotations = workload.scrape 8081;
        spec = workload.spread "operator" // {
          serviceAccountName = "operator";
          automountServiceAccountToken = true;
          terminationGracePeriodSeconds = 60;
          containers.operator = workload.container {
            name = "operator";
            image = workload.image "operator";
            args = [ "operator" ];
            r = o;
            ports = [ (workload.port "http" 8081) ];
            env = control.env
              ({
                GATEWAY_IMAGE = "${gateway cfg.registry}@${cfg.gatewayDigest}";
                TOKEN_PROXY_URL = "http://token-proxy.platform.svc.cluster.local:8080/v1";
                TOKEN_PROXY_NAMESPACE = "platform";
                TOKEN_PROXY_LABELS = "app.kubernetes.io/name=token-proxy";
                TOKEN_PROXY_PORT = "8080";
                DNS_NAMESPACE = "kube-system";
                DNS_LABELS = "k8s-app=kube-dns";
                STATE_MIB = toString o.stateMiB;
                MODEL = o.model;
                DRAIN_WITHIN = "10s";
              } // lib.optionalAttrs (o.storageClass != "") { STORAGE_CLASS = o.storageClass; }
              // lib.optionalAttrs (cfg.network.loadBalancers != [ ]) {
                EXCLUDE_NETWORKS = lib.concatStringsSep "," cfg.network.loadBalancers;
              })
              (control.databases // {
                OPENCLAW_TOKEN_PEPPER = "token_pepper";
                BOX_SECRETS_KEY = "box_secrets_key";
                OPERATOR_KEY = "operator_key";
              });
            more = workload.probes "http";
          };
        };
      };
    };
    services.operator = workload.service { name = "operator"; ports = [ (workload.servicePort "http" 8081) ]; };
    podDisruptionBudgets.operator = workload.disruption { name = "operator"; };
    networkPolicies.operator = flow.policy "operator" {
      # One port for the api, which has to show its key, and for metrics.
      ingress = [ (flow.from ([ (flow.pod "api") ] ++ lib.optional cfg.monitoring.enable flow.prometheus) [ 8081 ]) ];
      egress = [
        flow.apiServer
        flow.postgres
        (flow.to [ (flow.pod "redis") ] [ 6379 ])
      ];
    };
  };
}
