# Grafana: shows what is in dashboards/, which are made from Nix. What is changed in it by hand is gone
# with its pod: change the code.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw.monitoring;
  inherit (workload) labels get;
  yaml = import ../yaml.nix { inherit lib; };
  panels = import ./panels.nix { inherit lib; };

  dashboards = lib.mapAttrs' (name: _: lib.nameValuePair
    "${lib.removeSuffix ".nix" name}.json"
    (yaml.json (panels.dashboard (lib.removeSuffix ".nix" name) (import (./dashboards + "/${name}") panels))))
    (builtins.readDir ./dashboards);

  sources = yaml.document {
    apiVersion = 1;
    datasources = [{ name = "Prometheus"; uid = "prometheus"; type = "prometheus"; access = "proxy"; url = "http://prometheus:9090"; isDefault = true; }];
  };
  providers = yaml.document {
    apiVersion = 1;
    providers = [{ name = "openclaw"; type = "file"; allowUiUpdates = false; options.path = "/var/lib/grafana/dashboards"; }];
  };
in
{
  openclaw.texts = lib.mkIf cfg.enable dashboards;

  kubernetes.resources = lib.mkIf cfg.enable {
    configMaps.grafana = {
      metadata = { namespace = "monitoring"; labels = labels "grafana"; };
      data = { "datasources.yaml" = sources; "providers.yaml" = providers; };
    };
    configMaps.grafana-dashboards = {
      metadata = { namespace = "monitoring"; labels = labels "grafana"; };
      data = dashboards;
    };
    deployments.grafana = workload.deployment {
      name = "grafana";
      namespace = "monitoring";
      replicas = 1;
      strategy.type = "Recreate";
      pod = {
        user = 472;
        annotations = workload.scrape 3000 // workload.hash [ dashboards sources providers ];
        spec = {
          containers.grafana = {
            image = cfg.grafanaImage;
            env = workload.plainEnv {
              GF_SECURITY_ADMIN_PASSWORD__FILE = "/run/secrets/grafana/admin-password";
              GF_SECURITY_DISABLE_GRAVATAR = "true";
              GF_AUTH_ANONYMOUS_ENABLED = "false";
              GF_USERS_ALLOW_SIGN_UP = "false";
              # It asks nobody outside for anything.
              GF_ANALYTICS_REPORTING_ENABLED = "false";
              GF_ANALYTICS_CHECK_FOR_UPDATES = "false";
              GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES = "false";
              GF_PLUGINS_PREINSTALL_DISABLED = "true";
              GF_PATHS_DATA = "/var/lib/grafana/data";
            };
            ports = [ (workload.port "http" 3000) ];
            resources = workload.resources { cpu = "50m"; memory = "128Mi"; memoryLimit = "512Mi"; };
            securityContext = workload.containerSecurity;
            livenessProbe = get "http" "/api/health" // { periodSeconds = 10; timeoutSeconds = 5; initialDelaySeconds = 20; };
            readinessProbe = get "http" "/api/health" // { periodSeconds = 5; timeoutSeconds = 3; };
            volumeMounts = [
              { name = "data"; mountPath = "/var/lib/grafana/data"; }
              { name = "tmp"; mountPath = "/tmp"; }
              { name = "dashboards"; mountPath = "/var/lib/grafana/dashboards"; readOnly = true; }
              { name = "config"; mountPath = "/etc/grafana/provisioning/datasources"; readOnly = true; }
              { name = "providers"; mountPath = "/etc/grafana/provisioning/dashboards"; readOnly = true; }
              { name = "secrets"; mountPath = "/run/secrets/grafana"; readOnly = true; }
            ];
          };
          volumes = {
            config.configMap = { name = "grafana"; items = [{ key = "datasources.yaml"; path = "datasources.yaml"; }]; };
            providers.configMap = { name = "grafana"; items = [{ key = "providers.yaml"; path = "providers.yaml"; }]; };
            dashboards.configMap.name = "grafana-dashboards";
            data.emptyDir.sizeLimit = "512Mi";
            tmp.emptyDir.sizeLimit = "64Mi";
            secrets.secret = {
              secretName = workload.monitoringSecret;
              defaultMode = 288; # 0440
              items = [{ key = "grafana_admin_password"; path = "admin-password"; }];
            };
          };
        };
      };
    };
    services.grafana = workload.service { name = "grafana"; namespace = "monitoring"; ports = [ (workload.servicePort "http" 3000) ]; };
    networkPolicies.grafana = flow.policy "grafana" {
      namespace = "monitoring";
      ingress = [ (flow.from [ (flow.pod "prometheus") ] [ 3000 ]) ];
      egress = [ (flow.to [ (flow.pod "prometheus") ] [ 9090 ]) (flow.to [ (flow.pod "alertmanager") ] [ 9093 ]) ];
    };
  };
}
