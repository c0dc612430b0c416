# All of the platform in Kubernetes. What can be set is in options.nix; README.md says what is where.
{ kubenix, ... }: {
  imports = [
    kubenix.modules.k8s
    ./options.nix
    ./workload.nix
    ./policies.nix
    ./namespaces.nix
    ./infrastructure/redis.nix
    ./infrastructure/ingress.nix
    ./services/api.nix
    ./services/web.nix
    ./services/token-proxy.nix
    ./services/operator.nix
    ./services/onboarding-agent.nix
    ./services/billing-worker.nix
    ./monitoring
    ./external-secrets.nix
  ];

  # The oldest version of Kubernetes that the cluster may have: fields that it does not know are errors.
  kubernetes.version = "1.35";
  # A hash in every object would change all of them with each.
  kubernetes.addHashLabel = false;
}
