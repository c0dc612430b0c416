# The onboarding-agent: the conversation by which customers come, on the web and on Telegram. Its calls
# of the model go through token-proxy, with a token of the platform's own.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw;
  control = import ./control.nix { inherit workload; };
in
{
  kubernetes.resources = lib.mkIf cfg.onboardingAgent.enable {
    deployments.onboarding-agent = workload.deployment {
      name = "onboarding-agent";
      replicas = cfg.onboardingAgent.replicas;
      strategy = workload.rolling;
      pod = {
        annotations = workload.scrape 9000;
        spec = workload.spread "onboarding-agent" // {
          terminationGracePeriodSeconds = 80; # 5 s until nobody comes, 40 s for what is in hand, 15 s to have Telegram forget it, and some more
          containers.onboarding-agent = workload.container {
            name = "onboarding-agent";
            image = workload.image "onboarding-agent";
            args = [ "onboarding-agent" ];
            r = cfg.onboardingAgent;
            ports = [ (workload.port "http" 9000) ];
            env = control.env
              ({
                TOKEN_PROXY_URL = "http://token-proxy.platform.svc.cluster.local:8080/v1";
                PUBLIC_URL = "https://${cfg.hosts.app}";
                TRUSTED_PROXIES = lib.concatStringsSep "," cfg.network.pods;
                TRIAL_DAYS = toString cfg.api.trialDays;
              } // lib.optionalAttrs (cfg.onboardingAgent.telegramBot != "") {
                TELEGRAM_BOT_PAGE = "https://t.me/${cfg.onboardingAgent.telegramBot}";
              })
              (control.databases // {
                JWT_SECRET = "jwt_secret";
                OPENCLAW_TOKEN_PEPPER = "token_pepper";
                BOX_SECRETS_KEY = "box_secrets_key";
                STRIPE_SECRET_KEY = "stripe_secret_key";
                # Without it the conversation goes in prepared sentences.
                ONBOARDING_PROXY_TOKEN = "onboarding_proxy_token?";
                TELEGRAM_BOT_TOKEN = "telegram_bot_token?";
              });
            more = workload.probes "http" // { lifecycle.preStop.sleep.seconds = 5; };
          };
        };
      };
    };
    services.onboarding-agent = workload.service { name = "onboarding-agent"; ports = [ (workload.servicePort "http" 9000) ]; };
    podDisruptionBudgets.onboarding-agent = workload.disruption { name = "onboarding-agent"; };
    networkPolicies.onboarding-agent = flow.policy "onboarding-agent" {
      ingress = lib.optional cfg.web.enable (flow.from [ (flow.pod "web") ] [ 9000 ])
        ++ lib.optional cfg.monitoring.enable (flow.from [ flow.prometheus ] [ 9000 ]);
      egress = [
        flow.postgres
        (flow.to [ (flow.pod "redis") ] [ 6379 ])
        (flow.to [ (flow.pod "token-proxy") ] [ 8080 ])
        (flow.public [ 443 ]) # Telegram, Stripe
      ];
    };
  };
}
