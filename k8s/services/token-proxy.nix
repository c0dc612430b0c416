# token-proxy: the data plane. Boxes reach it at http://token-proxy.platform.svc.cluster.local:8080/v1,
# nobody else does. How a pod ends is told in three times, of which terminationGracePeriodSeconds is
# made: with less, streams would be cut and their leases stay held.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw;
  p = cfg.tokenProxy;
  seconds = n: "${toString n}s";

  # To cut what is left, to close connections and the admin listener, and for a busy node.
  reserveSeconds = 25;

  # What a pod may take, in MiB.
  memory =
    let size = builtins.match "([0-9]+)(Mi|Gi)" p.memoryLimit;
    in if size == null then throw "openclaw.tokenProxy.memoryLimit is to be in Mi or Gi, and is ${p.memoryLimit}"
    else lib.toInt (builtins.head size) * (if lib.last size == "Gi" then 1024 else 1);

  upstream = name: face: url: {
    inherit name face;
    base_url = url;
    keys = [{ name = "kimi"; secret = "env:KIMI_API_KEY"; }];
    inherit (p) models;
  };
  conf = {
    listen = ":8080";
    # For probes and Prometheus; no Service has this port, and the policy lets Prometheus in only.
    admin = ":9090";
    redis_url = "env:REDIS_URL";
    token_pepper_file = "/run/secrets/openclaw/token-pepper";
    journal_dir = "/var/lib/openclaw/token-proxy";
    upstreams = [
      (upstream "kimi" "openai" p.openAIUrl // { estimate_path = "/tokenizers/estimate-token-count"; })
      (upstream "kimi-anthropic" "anthropic" p.anthropicUrl // { key_header = "authorization"; })
    ];
    limits = {
      journal_bytes = p.journalMiB * 1024 * 1024;
      journal_slots = p.journalSlots;
      # Bodies live twice until garbage is collected, and streams and answers want room too.
      in_flight_bytes = memory * 1024 * 1024 / 4;
    };
    timeouts = {
      grace = seconds p.graceSeconds;
      pre_stop = seconds p.preStopSeconds;
      drain = seconds p.drainSeconds;
      flush = seconds p.flushSeconds;
    };
  } // lib.optionalAttrs cfg.ingress.publicProxy { trusted_proxies = cfg.network.pods; };
  file = (import ../yaml.nix { inherit lib; }).json conf;
in
{
  kubernetes.resources = {
    configMaps.token-proxy = {
      metadata = { namespace = "platform"; labels = workload.labels "token-proxy"; };
      data."token-proxy.json" = file;
    };

    deployments.token-proxy = workload.deployment {
      name = "token-proxy";
      strategy = workload.rolling;
      pod = {
        annotations = workload.scrape 9090 // workload.hash file;
        spec = workload.spread "token-proxy" // {
          terminationGracePeriodSeconds = p.preStopSeconds + p.drainSeconds + p.flushSeconds + reserveSeconds;
          containers.token-proxy = workload.container {
            name = "token-proxy";
            image = workload.image "token-proxy";
            args = [ "-config" "/etc/openclaw/token-proxy.json" ];
            r = p;
            ports = [ (workload.port "http" 8080) (workload.port "admin" 9090) ];
            # Garbage is collected more often before the kernel ends the process, and all its streams.
            env = workload.plainEnv { GOMEMLIMIT = "${toString (memory * 9 / 10)}MiB"; }
              // workload.secretEnv workload.secret { REDIS_URL = "redis_url"; KIMI_API_KEY = "kimi_api_key"; };
            more = {
              # What it asks itself at the start is whether Redis keeps what it is given; it waits for one that
              # does not answer.
              startupProbe = workload.get "admin" "/healthz" // { periodSeconds = 2; failureThreshold = 60; };
              livenessProbe = workload.get "admin" "/healthz" // { periodSeconds = 10; timeoutSeconds = 5; failureThreshold = 6; };
              readinessProbe = workload.get "admin" "/readyz" // { periodSeconds = 2; timeoutSeconds = 2; failureThreshold = 2; };
              volumeMounts = [
                { name = "config"; mountPath = "/etc/openclaw"; readOnly = true; }
                { name = "secrets"; mountPath = "/run/secrets/openclaw"; readOnly = true; }
                { name = "journal"; mountPath = "/var/lib/openclaw"; }
              ];
            };
          };
          volumes = {
            config.configMap.name = "token-proxy";
            secrets.secret = {
              secretName = workload.secret;
              defaultMode = 288; # 0440
              items = [{ key = "token_pepper"; path = "token-pepper"; }];
            };
            # It outlives the process, however that ends, and goes with the pod: then what two metrics show is
            # lost (token_proxy_usage_events_unacknowledged, token_proxy_journal_open), and the pod's leases stay
            # held until it is declared lost. Twice the journal: one that is recovered is written anew.
            journal.emptyDir.sizeLimit = "${toString (2 * (p.journalMiB + p.journalSlots / 1024) + 64)}Mi";
          };
        };
      };
    };

    services.token-proxy = workload.service { name = "token-proxy"; ports = [ (workload.servicePort "http" 8080) ]; };
    podDisruptionBudgets.token-proxy = workload.disruption { name = "token-proxy"; };
    horizontalPodAutoscalers.token-proxy = workload.autoscaler "token-proxy" p;

    networkPolicies.token-proxy = flow.policy "token-proxy" {
      ingress = [
        (flow.from ([ flow.boxes ]
          ++ lib.optional cfg.onboardingAgent.enable (flow.pod "onboarding-agent")
          ++ lib.optional cfg.ingress.publicProxy flow.controller) [ 8080 ])
      ] ++ lib.optional cfg.monitoring.enable (flow.from [ flow.prometheus ] [ 9090 ]);
      egress = [
        (flow.to [ (flow.pod "redis") ] [ 6379 ])
        (flow.public [ 443 ]) # Kimi
      ];
    };
  };
}
