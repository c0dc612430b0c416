# web: the pages. What they show comes from the api, whose cookies are of the same name.
{ config, lib, workload, flow, ... }:
let cfg = config.openclaw; in
{
  kubernetes.resources = lib.mkIf cfg.web.enable {
    deployments.web = workload.deployment {
      name = "web";
      replicas = cfg.web.replicas;
      strategy = workload.rolling;
      pod = {
        annotations = workload.scrape 8085;
        spec = workload.spread "web" // {
          terminationGracePeriodSeconds = 45;
          containers.web = workload.container {
            name = "web";
            image = workload.image "web";
            args = [ "web" ];
            r = cfg.web;
            ports = [ (workload.port "http" 3000) (workload.port "probes" 8085) ];
            env = workload.plainEnv ({
              API_URL = "http://api.platform.svc.cluster.local:8000";
              PUBLIC_URL = "https://${cfg.hosts.app}";
            } // lib.optionalAttrs cfg.onboardingAgent.enable {
              ONBOARDING_URL = "http://onboarding-agent.platform.svc.cluster.local:9000";
            });
            more = workload.probes "probes" // { lifecycle.preStop.sleep.seconds = 5; };
          };
        };
      };
    };
    services.web = workload.service { name = "web"; ports = [ (workload.servicePort "http" 3000) ]; };
    podDisruptionBudgets.web = workload.disruption { name = "web"; };
    networkPolicies.web = flow.policy "web" {
      ingress = [ (flow.from [ flow.controller ] [ 3000 ]) ]
        ++ lib.optional cfg.monitoring.enable (flow.from [ flow.prometheus ] [ 8085 ]);
      egress = [ (flow.to [ (flow.pod "api") ] [ 8000 ]) ]
        ++ lib.optional cfg.onboardingAgent.enable (flow.to [ (flow.pod "onboarding-agent") ] [ 9000 ]);
    };
  };
}
