# Alertmanager: everything goes to Slack, what cannot wait until the morning to PagerDuty as well. Both
# addresses are secrets, and read from files.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw.monitoring;
  inherit (workload) labels get;
  yaml = import ../yaml.nix { inherit lib; };
  secret = name: "/run/secrets/alertmanager/${name}";

  conf = yaml.document {
    route = {
      receiver = "slack";
      group_by = [ "alertname" "job" ];
      group_wait = "30s";
      group_interval = "5m";
      repeat_interval = "4h";
      routes = [{ matchers = [ "severity=\"critical\"" ]; receiver = "pagerduty"; repeat_interval = "1h"; continue = true; } {
        matchers = [ "severity=\"critical\"" ];
        receiver = "slack";
      }];
    };
    receivers = [
      {
        name = "slack";
        slack_configs = [{
          api_url_file = secret "slack-webhook-url";
          channel = cfg.slackChannel;
          send_resolved = true;
          title = "{{ .Status | toUpper }}: {{ .CommonLabels.alertname }} ({{ .CommonLabels.severity }})";
          text = "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.action }}\n{{ end }}";
        }];
      }
      {
        name = "pagerduty";
        pagerduty_configs = [{
          routing_key_file = secret "pagerduty-routing-key";
          send_resolved = true;
          description = "{{ .CommonLabels.alertname }}: {{ range .Alerts }}{{ .Annotations.summary }} {{ end }}";
          severity = "critical";
        }];
      }
    ];
    # While a whole service is away, what follows from it is no news.
    inhibit_rules = [{
      source_matchers = [ "alertname=\"ServiceDown\"" ];
      target_matchers = [ "severity=\"warning\"" ];
      equal = [ "job" ];
    }];
  };
in
{
  openclaw.texts = lib.mkIf cfg.enable { "alertmanager.yml" = conf; };

  kubernetes.resources = lib.mkIf cfg.enable {
    configMaps.alertmanager = {
      metadata = { namespace = "monitoring"; labels = labels "alertmanager"; };
      data."alertmanager.yml" = conf;
    };
    deployments.alertmanager = workload.deployment {
      name = "alertmanager";
      namespace = "monitoring";
      replicas = 1;
      # Two would send each message twice, for they would not know of each other.
      strategy.type = "Recreate";
      pod = {
        annotations = workload.scrape 9093 // workload.hash conf;
        spec = {
          containers.alertmanager = {
            image = cfg.alertmanagerImage;
            args = [ "--config.file=/etc/alertmanager/alertmanager.yml" "--storage.path=/alertmanager" "--cluster.listen-address=" ];
            ports = [ (workload.port "http" 9093) ];
            resources = workload.resources { cpu = "20m"; memory = "64Mi"; memoryLimit = "256Mi"; };
            securityContext = workload.containerSecurity;
            livenessProbe = get "http" "/-/healthy" // { periodSeconds = 10; timeoutSeconds = 5; };
            readinessProbe = get "http" "/-/ready" // { periodSeconds = 5; timeoutSeconds = 3; };
            volumeMounts = [
              { name = "config"; mountPath = "/etc/alertmanager"; readOnly = true; }
              { name = "secrets"; mountPath = "/run/secrets/alertmanager"; readOnly = true; }
              { name = "data"; mountPath = "/alertmanager"; }
            ];
          };
          volumes = {
            config.configMap.name = "alertmanager";
            secrets.secret = {
              secretName = workload.monitoringSecret;
              defaultMode = 288; # 0440
              items = [
                { key = "slack_webhook_url"; path = "slack-webhook-url"; }
                { key = "pagerduty_routing_key"; path = "pagerduty-routing-key"; }
              ];
            };
            # Silences and what was sent: after a restart an alert that goes on is told once more.
            data.emptyDir.sizeLimit = "64Mi";
          };
        };
      };
    };
    services.alertmanager = workload.service { name = "alertmanager"; namespace = "monitoring"; ports = [ (workload.servicePort "http" 9093) ]; };
    networkPolicies.alertmanager = flow.policy "alertmanager" {
      namespace = "monitoring";
      ingress = [ (flow.from [ (flow.pod "prometheus") (flow.pod "grafana") ] [ 9093 ]) ];
      egress = [ (flow.public [ 443 ]) ]; # Slack, PagerDuty
    };
  };
}
