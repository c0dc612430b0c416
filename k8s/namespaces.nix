# The namespaces that are ours. Those of customers are made by the operator; kube-system, cert-manager
# and ingress-nginx come with the nodes (nix/nodes).
{ lib, config, workload, ... }:
let
  # Pods that are not restricted are refused. The version is named, so that an upgrade of the cluster
  # does not turn pods away on its own.
  space = {
    metadata.labels = workload.labels "namespaces" // lib.listToAttrs (lib.concatMap
      (mode: [
        (lib.nameValuePair "pod-security.kubernetes.io/${mode}" "restricted")
        (lib.nameValuePair "pod-security.kubernetes.io/${mode}-version" "v${config.kubernetes.version}")
      ]) [ "enforce" "audit" "warn" ]);
  };
in
{
  kubernetes.resources.namespaces = {
    platform = space;
  } // lib.optionalAttrs config.openclaw.monitoring.enable { monitoring = space; };
}
