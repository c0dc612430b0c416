# What scripts/images, scripts/deploy, scripts/smoke-cluster and scripts/deploy-nodes call, in the releases of
# flake.lock: `nix develop .#release`.
{ pkgs }:
pkgs.mkShellNoCC {
  packages = [
    pkgs.cosign
    pkgs.syft
    pkgs.skopeo
    pkgs.kubectl
    pkgs.colmena
    pkgs.jq
    pkgs.git
    pkgs.curl
    pkgs.openssh
  ];
}
