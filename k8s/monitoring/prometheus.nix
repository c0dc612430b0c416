# Prometheus: asks every pod of the platform that has the annotation for its metrics, and evaluates the
# alert rules.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw.monitoring;
  inherit (workload) labels get;
  yaml = import ../yaml.nix { inherit lib; };

  rules = yaml.document (import ./rules.nix { inherit lib; inherit (config) openclaw; });

  # A pod is asked at the port that its annotation names, once, whatever other ports it has.
  conf = yaml.document {
    global = { scrape_interval = "15s"; evaluation_interval = "15s"; };
    rule_files = [ "/etc/prometheus/rules.yaml" ];
    alerting.alertmanagers = [{ static_configs = [{ targets = [ "alertmanager:9093" ]; }]; }];
    scrape_configs = [{
      job_name = "pods";
      kubernetes_sd_configs = [{ role = "pod"; namespaces.names = [ "platform" "monitoring" ]; }];
      relabel_configs = [
        { source_labels = [ "__meta_kubernetes_pod_annotation_prometheus_io_scrape" ]; regex = "true"; action = "keep"; }
        { source_labels = [ "__meta_kubernetes_pod_phase" ]; regex = "Pending|Succeeded|Failed"; action = "drop"; }
        { source_labels = [ "__meta_kubernetes_pod_container_init" ]; regex = "true"; action = "drop"; }
        { source_labels = [ "__meta_kubernetes_pod_annotation_prometheus_io_path" ]; regex = "(.+)"; target_label = "__metrics_path__"; }
        {
          source_labels = [ "__meta_kubernetes_pod_ip" "__meta_kubernetes_pod_annotation_prometheus_io_port" ];
          separator = ":";
          regex = "(.+):(\\d+)";
          replacement = "$1:$2";
          target_label = "__address__";
        }
        { source_labels = [ "__meta_kubernetes_pod_label_app_kubernetes_io_name" ]; target_label = "job"; }
        { source_labels = [ "__meta_kubernetes_namespace" ]; target_label = "namespace"; }
        { source_labels = [ "__meta_kubernetes_pod_name" ]; target_label = "pod"; }
        { source_labels = [ "__meta_kubernetes_pod_name" ]; target_label = "instance"; }
      ];
    }];
  };
in
{
  openclaw.texts = lib.mkIf cfg.enable {
    "prometheus.yml" = conf;
    "rules.yaml" = rules;
    "rules_test.yaml" = yaml.document (import ./rules_test.nix { inherit lib; inherit (config) openclaw; });
  };

  kubernetes.resources = lib.mkIf cfg.enable {
    serviceAccounts.prometheus.metadata = { namespace = "monitoring"; labels = labels "prometheus"; };
    # It sees pods of these two namespaces, and nothing of customers'.
    roles = lib.listToAttrs (map
      (namespace: lib.nameValuePair namespace {
        metadata = { name = "prometheus"; inherit namespace; labels = labels "prometheus"; };
        rules = [{ apiGroups = [ "" ]; resources = [ "pods" ]; verbs = [ "get" "list" "watch" ]; }];
      }) [ "platform" "monitoring" ]);
    roleBindings = lib.listToAttrs (map
      (namespace: lib.nameValuePair namespace {
        metadata = { name = "prometheus"; inherit namespace; labels = labels "prometheus"; };
        roleRef = { apiGroup = "rbac.authorization.k8s.io"; kind = "Role"; name = "prometheus"; };
        subjects = [{ kind = "ServiceAccount"; name = "prometheus"; namespace = "monitoring"; }];
      }) [ "platform" "monitoring" ]);

    configMaps.prometheus = {
      metadata = { namespace = "monitoring"; labels = labels "prometheus"; };
      data = { "prometheus.yml" = conf; "rules.yaml" = rules; };
    };

    statefulSets.prometheus = {
      metadata = { namespace = "monitoring"; labels = labels "prometheus"; };
      spec = {
        serviceName = "prometheus";
        replicas = 1;
        selector.matchLabels."app.kubernetes.io/name" = "prometheus";
        template = workload.template {
          name = "prometheus";
          annotations = workload.scrape 9090 // workload.hash [ conf rules ];
          spec = {
            serviceAccountName = "prometheus";
            automountServiceAccountToken = true;
            terminationGracePeriodSeconds = 120;
            containers.prometheus = {
              image = cfg.prometheusImage;
              args = [
                "--config.file=/etc/prometheus/prometheus.yml"
                "--storage.tsdb.path=/prometheus"
                "--storage.tsdb.retention.time=${cfg.retention}"
              ];
              ports = [ (workload.port "http" 9090) ];
              resources = workload.resources { cpu = "200m"; memory = "512Mi"; memoryLimit = "2Gi"; };
              securityContext = workload.containerSecurity;
              startupProbe = get "http" "/-/ready" // { periodSeconds = 5; failureThreshold = 60; };
              livenessProbe = get "http" "/-/healthy" // { periodSeconds = 10; timeoutSeconds = 5; };
              readinessProbe = get "http" "/-/ready" // { periodSeconds = 5; timeoutSeconds = 3; };
              volumeMounts = [
                { name = "data"; mountPath = "/prometheus"; }
                { name = "config"; mountPath = "/etc/prometheus"; readOnly = true; }
              ];
            };
            volumes.config.configMap.name = "prometheus";
          };
        };
        volumeClaimTemplates = [{
          apiVersion = "v1";
          kind = "PersistentVolumeClaim";
          metadata.name = "data";
          spec = {
            accessModes = [ "ReadWriteOnce" ];
            resources.requests.storage = cfg.storage;
          } // lib.optionalAttrs (cfg.storageClass != null) { storageClassName = cfg.storageClass; };
        }];
      };
    };
    services.prometheus = workload.service { name = "prometheus"; namespace = "monitoring"; ports = [ (workload.servicePort "http" 9090) ]; };

    networkPolicies.prometheus = flow.policy "prometheus" {
      namespace = "monitoring";
      ingress = [ (flow.from [ (flow.pod "grafana") (flow.pod "prometheus") ] [ 9090 ]) ];
      egress = [
        flow.apiServer
        (flow.to [ (flow.pod "alertmanager") ] [ 9093 ])
        (flow.to [ (flow.pod "grafana") ] [ 3000 ])
        (flow.to [ (flow.pod "prometheus") ] [ 9090 ])
        # Each to its own port of metrics, which its policy lets in.
        (flow.to [ (flow.podIn "platform" "token-proxy") ] [ 9090 ])
        (flow.to [ (flow.podIn "platform" "api") ] [ 8083 ])
        (flow.to [ (flow.podIn "platform" "operator") ] [ 8081 ])
        (flow.to [ (flow.podIn "platform" "billing-worker") ] [ 8082 ])
        (flow.to [ (flow.podIn "platform" "redis") ] [ 9121 ])
      ]
      ++ lib.optional config.openclaw.onboardingAgent.enable (flow.to [ (flow.podIn "platform" "onboarding-agent") ] [ 9000 ])
      ++ lib.optional config.openclaw.web.enable (flow.to [ (flow.podIn "platform" "web") ] [ 8085 ]);
    };
  };
}
