# What all pods have in common, as functions: the argument "workload" of the other modules.
{ lib, config, ... }:
let
  cfg = config.openclaw;

  labels = name: {
    "app.kubernetes.io/name" = name;
    "app.kubernetes.io/part-of" = "openclaw-cloud";
  };

  # Pod Security's profile restricted, and a root file system that cannot be written.
  podSecurity = user: {
    runAsNonRoot = true;
    runAsUser = user;
    runAsGroup = user;
    fsGroup = user;
    seccompProfile.type = "RuntimeDefault";
  };
  containerSecurity = {
    allowPrivilegeEscalation = false;
    readOnlyRootFilesystem = true;
    capabilities.drop = [ "ALL" ];
  };

  plainEnv = lib.mapAttrs (_: value: { inherit value; });
  # From keys of a Secret; a key that ends in "?" need not be there.
  secretEnv = secret: lib.mapAttrs (_: key: {
    valueFrom.secretKeyRef = {
      name = secret;
      key = lib.removeSuffix "?" key;
    } // lib.optionalAttrs (lib.hasSuffix "?" key) { optional = true; };
  });

  port = name: containerPort: { inherit name containerPort; protocol = "TCP"; };
  servicePort = name: number: { inherit name; port = number; targetPort = name; protocol = "TCP"; };
  get = port: path: { httpGet = { inherit port path; }; };

  # An image of ours. Each starts its program, and the arguments say as what.
  image = name: "${cfg.registry}/${name}:${cfg.tag}" + lib.optionalString (cfg.digests ? ${name}) "@${cfg.digests.${name}}";
  pull = if cfg.tag == "latest" then "Always" else "IfNotPresent";

  resources = r: {
    requests = { inherit (r) cpu memory; };
    limits.memory = r.memoryLimit;
  };

  # Not two of one kind on one node, if there are two nodes.
  spread = name: {
    topologySpreadConstraints = [{
      maxSkew = 1;
      topologyKey = "kubernetes.io/hostname";
      whenUnsatisfiable = "ScheduleAnyway";
      labelSelector.matchLabels."app.kubernetes.io/name" = name;
    }];
    affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution = [{
      weight = 100;
      podAffinityTerm = {
        topologyKey = "kubernetes.io/hostname";
        labelSelector.matchLabels."app.kubernetes.io/name" = name;
      };
    }];
  };

  scrape = port: {
    "prometheus.io/scrape" = "true";
    "prometheus.io/port" = toString port;
    "prometheus.io/path" = "/metrics";
  };

  # The template of a pod. spec is what is special about it.
  template = { name, user ? 65532, annotations ? { }, spec }: {
    metadata = { labels = labels name; inherit annotations; };
    spec = {
      automountServiceAccountToken = false;
      # Otherwise each Service is told in variables, whose names are those of settings.
      enableServiceLinks = false;
      securityContext = podSecurity user;
    } // spec;
  };

  deployment = { name, namespace ? "platform", replicas ? null, strategy, pod }: {
    metadata = { inherit namespace; labels = labels name; };
    spec = {
      revisionHistoryLimit = 5;
      selector.matchLabels."app.kubernetes.io/name" = name;
      inherit strategy;
      template = template (pod // { inherit name; });
    } // lib.optionalAttrs (replicas != null) { inherit replicas; };
  };

  # One more before one less: those that serve.
  rolling = { type = "RollingUpdate"; rollingUpdate = { maxSurge = 1; maxUnavailable = 0; }; };

  service = { name, namespace ? "platform", ports }: {
    metadata = { inherit namespace; labels = labels name; };
    spec = { selector."app.kubernetes.io/name" = name; inherit ports; };
  };

  disruption = { name, namespace ? "platform" }: {
    metadata = { inherit namespace; labels = labels name; };
    spec = { maxUnavailable = 1; selector.matchLabels."app.kubernetes.io/name" = name; };
  };

  # More at once, fewer slowly: a pod that ends may have streams for minutes.
  autoscaler = name: s: {
    metadata = { namespace = "platform"; labels = labels name; };
    spec = {
      scaleTargetRef = { apiVersion = "apps/v1"; kind = "Deployment"; inherit name; };
      minReplicas = s.least;
      maxReplicas = s.most;
      metrics = [{
        type = "Resource";
        resource = { name = "cpu"; target = { type = "Utilization"; averageUtilization = s.cpuPercent; }; };
      }];
      behavior.scaleUp = {
        stabilizationWindowSeconds = 0;
        policies = [{ type = "Percent"; value = 100; periodSeconds = 30; }];
      };
      behavior.scaleDown = {
        stabilizationWindowSeconds = 600;
        policies = [{ type = "Pods"; value = 1; periodSeconds = 300; }];
      };
    };
  };

  # A container of one of our programs.
  container = { name, image, args, env ? { }, ports ? [ ], r, more ? { } }: {
    inherit name args env image;
    imagePullPolicy = pull;
    resources = resources r;
    securityContext = containerSecurity;
    terminationMessagePolicy = "FallbackToLogsOnError";
  } // lib.optionalAttrs (ports != [ ]) { inherit ports; } // more;

  # The probes of a role of control. A process that waits for Redis or Postgres is alive.
  probes = port: {
    startupProbe = get port "/healthz" // { periodSeconds = 2; failureThreshold = 30; };
    livenessProbe = get port "/healthz" // { periodSeconds = 10; timeoutSeconds = 5; failureThreshold = 6; };
    readinessProbe = get port "/readyz" // { periodSeconds = 5; timeoutSeconds = 3; failureThreshold = 3; };
  };

  # Pods of which a ConfigMap is a part are replaced when it changes.
  hash = data: { "openclaw.cloud/config-hash" = builtins.substring 0 16 (builtins.hashString "sha256" (builtins.toJSON data)); };
in
{
  _module.args.workload = {
    inherit labels podSecurity containerSecurity plainEnv secretEnv port servicePort get image pull resources spread scrape
      template deployment rolling service disruption autoscaler container probes hash;
    secret = "platform-secrets";
    monitoringSecret = "monitoring-secrets";
  };
}
