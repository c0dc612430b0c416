# Builds images, manifests and the systems of the others, and is no node of the cluster: it has no
# token, and none of the cluster's ports are open.
{ pkgs, ... }:
{
  nix = {
    settings = {
      max-jobs = "auto";
      cores = 0;
      keep-outputs = true; # what the next build needs again
      keep-derivations = true;
      system-features = [
        "big-parallel"
        "kvm"
        "nixos-test"
      ];
    };
    gc.options = "--delete-older-than 30d";
  };

  environment.systemPackages = [
    pkgs.git
    pkgs.skopeo
  ];
}
