# What a contributor needs: `nix develop`. colmena is nixpkgs' own, which the binary cache has.
{ lib, pkgs }:
pkgs.mkShell {
  packages = [
    (import ./go.nix { inherit lib pkgs; })
    pkgs.gnumake
    pkgs.gcc # the race detector
    pkgs.git
    pkgs.curl
    pkgs.redis
    pkgs.postgresql
    pkgs.nodejs_24
    pkgs.kubectl
    pkgs.kubernetes-helm
    pkgs.kubeconform
    pkgs.prometheus.cli # promtool
    pkgs.prometheus # make monitoring runs it, and the two below
    pkgs.prometheus-alertmanager
    pkgs.prometheus-redis-exporter
    pkgs.actionlint
    pkgs.shellcheck
    pkgs.jq
    pkgs.sops
    pkgs.age
    pkgs.ssh-to-age
    pkgs.colmena
    pkgs.nixfmt
    pkgs.skopeo
    pkgs.stripe-cli
  ]
  ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [
    pkgs.nginx
    pkgs.haproxy
    pkgs.strace
  ];

  # The module cache and toolchain of go.mod, nothing else.
  env.GOTOOLCHAIN = "local";
}
