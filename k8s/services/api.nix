# The api: REST for customers at 8000, and Stripe's webhook. Operators' routes are at the pod's own
# 127.0.0.1:8001: openclawctl comes to them by "kubectl port-forward", which asks for rights in the
# cluster, and no connection of any pod does.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw;
  control = import ./control.nix { inherit workload; };
in
{
  kubernetes.resources = {
    deployments.api = workload.deployment {
      name = "api";
      strategy = workload.rolling;
      pod = {
        annotations = workload.scrape 8083;
        spec = workload.spread "api" // {
          # drain-within, and again for the jobs in hand.
          terminationGracePeriodSeconds = 60;
          containers.api = workload.container {
            name = "api";
            image = workload.image "api";
            args = [ "api" ];
            r = cfg.api;
            ports = [ (workload.port "http" 8000) (workload.port "probes" 8083) ];
            env = control.env
              ({
                PUBLIC_URL = "https://${cfg.hosts.app}";
                ORIGINS = "https://${cfg.hosts.app}";
                TRUSTED_PROXIES = lib.concatStringsSep "," cfg.network.pods;
                LISTEN_OPERATORS = "127.0.0.1:8001";
                OPERATOR_URL = "http://operator.platform.svc.cluster.local:8081";
                DRAIN_WITHIN = "20s";
                TRIAL_DAYS = toString cfg.api.trialDays;
              } // lib.optionalAttrs (cfg.api.operatorOrigins != [ ]) {
                OPERATOR_ORIGINS = lib.concatStringsSep "," cfg.api.operatorOrigins;
              } // lib.optionalAttrs (cfg.onboardingAgent.enable && cfg.onboardingAgent.telegramBot != "") {
                TELEGRAM_BOT_PAGE = "https://t.me/${cfg.onboardingAgent.telegramBot}";
              })
              (control.databases // {
                JWT_SECRET = "jwt_secret";
                OPENCLAW_TOKEN_PEPPER = "token_pepper";
                BOX_SECRETS_KEY = "box_secrets_key";
                OPERATOR_KEY = "operator_key";
                STRIPE_SECRET_KEY = "stripe_secret_key";
                STRIPE_WEBHOOK_SECRETS = "stripe_webhook_secret";
              });
            more = workload.probes "probes" // {
              # Connections come for a moment after a pod was told to end.
              lifecycle.preStop.sleep.seconds = 5;
            };
          };
        };
      };
    };
    services.api = workload.service { name = "api"; ports = [ (workload.servicePort "http" 8000) ]; };
    podDisruptionBudgets.api = workload.disruption { name = "api"; };
    horizontalPodAutoscalers.api = workload.autoscaler "api" cfg.api;
    networkPolicies.api = flow.policy "api" {
      ingress = [ (flow.from ([ flow.controller ] ++ lib.optional cfg.web.enable (flow.pod "web")) [ 8000 ]) ]
        ++ lib.optional cfg.monitoring.enable (flow.from [ flow.prometheus ] [ 8083 ]);
      egress = [
        flow.postgres
        (flow.to [ (flow.pod "redis") ] [ 6379 ])
        (flow.to [ (flow.pod "operator") ] [ 8081 ])
        (flow.public [ 443 ]) # Stripe
      ];
    };
  };
}
