# Everything that differs from one installation to another. The defaults are those of the cluster in
# nix/, its addresses those of nix/cluster.nix; what an installation must set itself is marked "set this".
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.openclaw;

  cluster = import ../nix/cluster.nix;
  # Addresses of the hosts of a role, as networks; address is public or private.
  addresses = role: address: map (h: "${h.${address}}/32") (lib.filter (h: h.role == role) (lib.attrValues cluster.hosts));

  option = type: default: description: mkOption { inherit type default description; };
  text = option types.str;
  number = option types.ints.unsigned;
  yes = option types.bool;
  networks = option (types.listOf types.str);

  # What the scheduler reserves for one pod, and where the kernel ends it. There is no limit on
  # processor time: throttling would add latency where an idle node has time to give.
  resources = cpu: memory: memoryLimit: {
    cpu = text cpu "Processor time that is reserved for a pod.";
    memory = text memory "Memory that is reserved for a pod.";
    memoryLimit = text memoryLimit "Memory with which a pod is ended.";
  };
  fixed = replicas: { replicas = number replicas "How many pods run."; };
  scaled = least: most: {
    least = number least "How many pods run at least.";
    most = number most "How many pods run at most.";
    cpuPercent = number 70 "How much of the reserved processor time pods shall use on average; more or fewer are started for it.";
  };
in
{
  options.openclaw = {
    registry = text "ghcr.io/andreabadesso/openclaw-cloud" "Where the images of this project are.";
    tag = text "latest" "Tag of the images: a commit. \"latest\" is for development, and is pulled at each start of a pod.";
    digests = option (types.attrsOf types.str) { } ''
      Digests of images, by their name (api, token-proxy, …), such as "sha256:…". With one the image is
      pinned to it, whatever becomes of the tag.
    '';
    gatewayDigest = text "sha256:0000000000000000000000000000000000000000000000000000000000000000" ''
      Set this: the digest of the image openclaw-gateway, which customers' pods run. The operator takes an
      image by digest only. With the default nothing can be pulled, and boxes fail with that reason.
    '';

    domain = text "openclaw.example" "Set this: the domain that all names are in.";
    hosts = {
      app = text "app.${cfg.domain}" "Where customers' pages are.";
      api = text "api.${cfg.domain}" "Where programs reach the api, and Stripe its webhook.";
      proxy = text "proxy.${cfg.domain}" "Where token-proxy is, if it is public.";
    };

    ingress = {
      class = text "nginx" "Class of the ingress controller; the annotations are those of ingress-nginx.";
      issuer = text "letsencrypt" "ClusterIssuer of cert-manager that certificates come from.";
      namespace = text "ingress-nginx" "Namespace of the ingress controller's pods.";
      requestsPerSecond = number 20 "Requests per second and client address; five times as many in a burst.";
      connections = number 40 "Connections per client address: each open event stream is one.";
      publicProxy = yes false ''
        Also publish token-proxy's /v1, at hosts.proxy, for agents that run elsewhere. Boxes need it not: they
        reach token-proxy within the cluster. token-proxy then takes the caller's address from the
        X-Forwarded-For of all pods (network.pods), for which of them is the controller does not show in an
        address. So boxes too can write there what they like; hence it is off.
      '';
    };

    network = {
      pods = networks [ cluster.network.pods ] "Networks of pods: the X-Forwarded-For of the ingress controller is believed.";
      apiServer = networks (addresses "control-plane" "private") "Addresses of the API server, as pods come to it after address translation.";
      apiServerPort = number 6443 "Its port.";
      postgres = networks [ cluster.network.private ] "Networks in which Postgres is, which is not part of the cluster.";
      postgresPort = number 5432 "Its port.";
      loadBalancers = networks (addresses "worker" "public") "Public addresses in front of the cluster, which customers' pods must not reach: here those of the workers, where the ingress controller is.";
      smtpPort = number 587 "Port of the SMTP server, which is at a public address.";
    };

    redis = {
      image = text "docker.io/library/redis:7.4.1-alpine" "Image of Redis 6.2 or newer.";
      exporterImage = text "docker.io/oliver006/redis_exporter:v1.66.0-alpine" "Image of the exporter of its metrics.";
      memoryMiB = number 1024 "Memory for data. When it is full, writing fails: nothing is ever evicted.";
      storage = text "10Gi" "Size of the volume with the append-only file.";
      storageClass = option (types.nullOr types.str) null "Its storage class; the cluster's default without one.";
      cpu = text "250m" "Processor time that is reserved.";
    };

    tokenProxy = {
      preStopSeconds = number 5 "How long a pod that ends goes on accepting, until everyone knows that it ends.";
      drainSeconds = number 600 "How long streams then may take to finish.";
      flushSeconds = number 30 "How long usage events then may take to reach Redis.";
      graceSeconds = number 10 "How long to serve without hearing from Redis.";
      journalMiB = number 64 "Room for usage events that Postgres does not have yet.";
      journalSlots = number 16384 "Forwarded requests in flight.";
      openAIUrl = text "https://api.moonshot.ai/v1" "Kimi's API in OpenAI's form.";
      anthropicUrl = text "https://api.moonshot.ai/anthropic/v1" "Kimi's API in Anthropic's form.";
      models = option (types.attrsOf types.str)
        {
          k2p5 = "kimi-k2.5";
          "kimi-k2.5" = "kimi-k2.5";
          "kimi-k2.6" = "kimi-k2.6";
        } "Models that are served: as clients call them, and as Kimi does.";
    } // resources "1" "512Mi" "2Gi" // scaled 2 8;

    api = resources "200m" "128Mi" "512Mi" // scaled 2 6 // {
      trialDays = number 0 "How many days the first subscription of a customer costs nothing.";
      operatorOrigins = option (types.listOf types.str) [ ] "Origins of operations consoles on operators' own machines, such as http://127.0.0.1:3001 (k8s/README.md). Without any, no browser can sign in as an operator.";
    };

    billingWorker = resources "200m" "128Mi" "512Mi" // fixed 2;

    operator = resources "100m" "256Mi" "1Gi" // fixed 2 // {
      storageClass = text "" "Storage class of the volumes that keep gateways' state; without one it ends with the pod.";
      stateMiB = number 2048 "How large the state of a gateway may get.";
      model = text "kimi-k2.5" "Model of the agents, as token-proxy knows it.";
    };

    onboardingAgent = resources "100m" "128Mi" "256Mi" // fixed 2 // {
      enable = yes true "Run it. It speaks on Telegram if it has a bot, and with the pages if web runs.";
      telegramBot = text "" "User name of its bot on Telegram, such as openclaw_bot: the pages then lead to it.";
    };
    web = resources "100m" "64Mi" "256Mi" // fixed 2 // {
      enable = yes true "Run it. Without it customers come by Telegram. It serves no operations console: operators use openclawctl either way (k8s/README.md).";
    };

    mail = {
      host = text "" "SMTP server. Without one mails are kept in Postgres.";
      username = text "" "Whom to sign in as there.";
      from = text "OpenClaw <billing@${cfg.domain}>" "Whom mails come from.";
    };

    monitoring = {
      enable = yes true "Run Prometheus, Alertmanager and Grafana in the namespace monitoring.";
      prometheusImage = text "docker.io/prom/prometheus:v2.55.1" "Image of Prometheus.";
      alertmanagerImage = text "docker.io/prom/alertmanager:v0.27.0" "Image of Alertmanager.";
      grafanaImage = text "docker.io/grafana/grafana:11.3.1" "Image of Grafana.";
      storage = text "20Gi" "Size of Prometheus' volume.";
      storageClass = option (types.nullOr types.str) null "Its storage class.";
      retention = text "30d" "How long metrics are kept.";
      slackChannel = text "#openclaw-alerts" "Where alerts go in Slack.";
    };

    vault = {
      enable = yes false ''
        Have External Secrets Operator, which must be installed, make platform-secrets and monitoring-secrets
        from Vault, instead of scripts/platform-secrets.
      '';
      server = text "https://vault.${cfg.domain}:8200" "Where Vault is.";
      mount = text "kubernetes" "Where in Vault the cluster's accounts sign in.";
      role = text "openclaw-platform" "Role in Vault that may read the secrets, and nothing else.";
      path = text "openclaw" "Where in the secret engine (version 2, mounted at kv) the secrets are: PATH/platform-secrets.";
      later = option (types.listOf types.str) [ ] "Keys that an installation can begin without (\"later\" in nix/platform-secrets.json) and that are in Vault by now.";
      refresh = text "5m" "How often to look for changes.";
    };

    assertions = option (types.listOf types.attrs) [ ] "What must hold; as in NixOS.";
    texts = option (types.attrsOf types.str) { } "Configuration files that programs of their own check, by name.";
  };

  config.openclaw.assertions = [
    {
      assertion = builtins.match "sha256:[0-9a-f]{64}" cfg.gatewayDigest != null;
      message = "gatewayDigest is ${cfg.gatewayDigest}: write sha256: and 64 hexadecimal digits";
    }
    {
      assertion = lib.all (d: builtins.match "sha256:[0-9a-f]{64}" d != null) (lib.attrValues cfg.digests);
      message = "digests: write sha256: and 64 hexadecimal digits";
    }
    {
      assertion = builtins.match "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}" cfg.tag != null;
      message = "tag is ${cfg.tag}, which no image can have";
    }
  ];
}
