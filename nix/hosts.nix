# Each host of cluster.nix as NixOS modules: the same for nixosConfigurations, which nixos-anywhere
# installs, and for the hive, which colmena deploys.
{
  lib,
  nixpkgs,
  colmena,
  disko,
  sops-nix,
  pkgs,
  system,
}:
let
  cluster = import ./cluster.nix;
  faults = import ./check-cluster.nix cluster;
  hosts =
    if faults == [ ] then
      cluster.hosts
    else
      throw "nix/cluster.nix:\n${lib.concatMapStrings (f: "  ${f}\n") faults}";

  modules = host: [
    disko.nixosModules.disko
    sops-nix.nixosModules.sops
    ./nodes/common.nix
    ./nodes/${host.role}.nix
    ./nodes/secrets-present.nix
  ];
  arguments = hostName: host: { inherit cluster host hostName; };

  raw = {
    meta = {
      nixpkgs = pkgs;
      description = "openclaw-cloud";
      nodeSpecialArgs = lib.mapAttrs arguments hosts;
    };
  }
  // lib.mapAttrs (_: host: {
    imports = modules host;
    deployment = {
      targetHost = host.public;
      targetUser = "deploy";
      inherit (host) tags;
      # Built where colmena runs, which is the build host; nodes build nothing.
      buildOnTarget = false;
    };
  }) hosts;
in
{
  nixosConfigurations = lib.mapAttrs (
    hostName: host:
    nixpkgs.lib.nixosSystem {
      inherit system;
      modules = modules host;
      specialArgs = arguments hostName host;
    }
  ) hosts;

  hive = colmena.lib.makeHive raw;
  inherit raw;
}
