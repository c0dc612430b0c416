# Phase 2 of monitoring, in a namespace of its own: Prometheus, Alertmanager, Grafana. None is public:
# "kubectl -n monitoring port-forward" leads to them. Dashboards and rules are code, and reviewed as such.
{ config, lib, flow, ... }: {
  imports = [ ./prometheus.nix ./alertmanager.nix ./grafana.nix ];

  kubernetes.resources = lib.mkIf config.openclaw.monitoring.enable {
    networkPolicies.monitoring-default-deny = flow.defaults "monitoring";
  };
}
