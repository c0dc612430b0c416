# Redis: what token-proxy and the control plane share. It keeps every key (noeviction) and writes each
# change to an append-only file, or none of our programs starts. One pod: Postgres can make anew what it
# loses, and until then nothing is given out twice (ARCHITECTURE, "When something fails").
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw.redis;
  inherit (workload) labels port get;
  conf = ''
    port 6379
    bind * -::*
    dir /data
    appendonly yes
    appendfsync everysec
    save ""
    maxmemory ${toString cfg.memoryMiB}mb
    maxmemory-policy noeviction
    tcp-keepalive 60
    timeout 0
  '';
in
{
  kubernetes.resources = {
    configMaps.redis = {
      metadata = { namespace = "platform"; labels = labels "redis"; };
      data."redis.conf" = conf;
    };

    statefulSets.redis = {
      metadata = { namespace = "platform"; labels = labels "redis"; };
      spec = {
        serviceName = "redis";
        replicas = 1;
        selector.matchLabels."app.kubernetes.io/name" = "redis";
        template = workload.template {
          name = "redis";
          user = 999;
          annotations = workload.scrape 9121 // workload.hash conf;
          spec = {
            terminationGracePeriodSeconds = 60;
            containers = {
              redis = {
                image = cfg.image;
                command = [ "redis-server" "/etc/redis/redis.conf" ];
                # Kubernetes puts the variable's value in; who can see the arguments is in the pod already.
                args = [ "--requirepass" "$(REDIS_PASSWORD)" ];
                env = workload.secretEnv workload.secret { REDIS_PASSWORD = "redis_password"; REDISCLI_AUTH = "redis_password"; };
                ports = [ (port "redis" 6379) ];
                # Rewriting the append-only file takes a copy of what changes meanwhile.
                resources = workload.resources {
                  inherit (cfg) cpu;
                  memory = "${toString (cfg.memoryMiB * 3 / 2)}Mi";
                  memoryLimit = "${toString (cfg.memoryMiB * 2 + 128)}Mi";
                };
                securityContext = workload.containerSecurity;
                # It listens while it reads its file, and must not be ended for that. It is ready after it:
                # with -e an answer that is an error is one of redis-cli, too.
                livenessProbe = { tcpSocket.port = "redis"; periodSeconds = 10; failureThreshold = 6; };
                readinessProbe = { exec.command = [ "redis-cli" "-e" "ping" ]; periodSeconds = 5; timeoutSeconds = 3; };
                volumeMounts = [
                  { name = "data"; mountPath = "/data"; }
                  { name = "config"; mountPath = "/etc/redis"; readOnly = true; }
                ];
              };
              exporter = {
                image = cfg.exporterImage;
                env = workload.secretEnv workload.secret { REDIS_PASSWORD = "redis_password"; }
                  // workload.plainEnv { REDIS_ADDR = "redis://127.0.0.1:6379"; };
                ports = [ (port "metrics" 9121) ];
                resources = workload.resources { cpu = "20m"; memory = "32Mi"; memoryLimit = "128Mi"; };
                securityContext = workload.containerSecurity;
                livenessProbe = get "metrics" "/health" // { periodSeconds = 20; timeoutSeconds = 5; };
              };
            };
            volumes.config.configMap.name = "redis";
          };
        };
        volumeClaimTemplates = [{
          # The API server fills these two in; what is applied shall be what is there.
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

    services.redis = lib.recursiveUpdate
      (workload.service { name = "redis"; ports = [ (workload.servicePort "redis" 6379) ]; })
      # Its pod is named by the StatefulSet, without an address of the Service's own between.
      { spec.clusterIP = "None"; };

    networkPolicies.redis = flow.policy "redis" {
      ingress = [
        (flow.from (map flow.pod ([ "api" "billing-worker" "operator" "token-proxy" ]
          ++ lib.optional config.openclaw.onboardingAgent.enable "onboarding-agent")) [ 6379 ])
      ] ++ lib.optional config.openclaw.monitoring.enable (flow.from [ flow.prometheus ] [ 9121 ]);
    };
  };
}
