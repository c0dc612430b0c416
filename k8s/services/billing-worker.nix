# The billing-worker: the usage ledger, Stripe's events, mails, limits. It also brings the database to
# the newest schema: the old ones end first (Recreate), for some releases ask for that, and nothing is
# lost meanwhile, since events wait in Redis. Other roles of a new release start again until it is done.
{ config, lib, workload, flow, ... }:
let
  cfg = config.openclaw;
  control = import ./control.nix { inherit workload; };
  image = workload.image "billing-worker";
in
{
  kubernetes.resources = {
    deployments.billing-worker = workload.deployment {
      name = "billing-worker";
      replicas = cfg.billingWorker.replicas;
      strategy.type = "Recreate";
      pod = {
        annotations = workload.scrape 8082;
        spec = workload.spread "billing-worker" // {
          terminationGracePeriodSeconds = 60;
          initContainers.migrate = workload.container {
            name = "migrate";
            inherit image;
            args = [ "migrate" ];
            r = cfg.billingWorker;
            env = control.env { } { DATABASE_URL = "postgres_url"; };
          };
          containers.billing-worker = workload.container {
            name = "billing-worker";
            inherit image;
            args = [ "billing-worker" ];
            r = cfg.billingWorker;
            ports = [ (workload.port "probes" 8082) ];
            env = control.env
              ({
                REPLICA_GRACE = "${toString cfg.tokenProxy.graceSeconds}s";
                DASHBOARD_URL = "https://${cfg.hosts.app}";
                LEDGER_FINISH_WITHIN = "10s";
              } // lib.optionalAttrs (cfg.mail.host != "") {
                SMTP_HOST = cfg.mail.host;
                SMTP_PORT = toString cfg.network.smtpPort;
                MAIL_FROM = cfg.mail.from;
              } // lib.optionalAttrs (cfg.mail.username != "") { SMTP_USERNAME = cfg.mail.username; })
              (control.databases // { STRIPE_SECRET_KEY = "stripe_secret_key"; }
                // lib.optionalAttrs (cfg.mail.host != "") { SMTP_PASSWORD = "smtp_password?"; });
            more = workload.probes "probes";
          };
        };
      };
    };
    podDisruptionBudgets.billing-worker = workload.disruption { name = "billing-worker"; };
    networkPolicies.billing-worker = flow.policy "billing-worker" {
      ingress = lib.optional cfg.monitoring.enable (flow.from [ flow.prometheus ] [ 8082 ]);
      egress = [
        flow.postgres
        (flow.to [ (flow.pod "redis") ] [ 6379 ])
        (flow.public ([ 443 ] ++ lib.optional (cfg.mail.host != "") cfg.network.smtpPort)) # Stripe, mails
      ];
    };
  };
}
