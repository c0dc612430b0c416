# The outputs of flake.nix.
inputs@{ self, nixpkgs, ... }:
let
  inherit (nixpkgs) lib;

  # What runs is Linux on x86-64; contributors also have other machines.
  cloud = "x86_64-linux";
  systems = [
    cloud
    "aarch64-linux"
    "aarch64-darwin"
  ];
  each = lib.genAttrs systems;
  pkgsFor = system: nixpkgs.legacyPackages.${system};

  # A flake takes no arguments: images and manifests of a commit have its hash as their tag, those of a
  # working tree with changes have "latest". Another tag: lib.imagesFor and lib.manifestsFor.
  commit = self.rev or "latest";

  packagesFor =
    system:
    import ./packages.nix {
      inherit lib;
      pkgs = pkgsFor system;
      revision = self.rev or self.dirtyRev or "unknown";
    };

  imagesFor =
    tag:
    import ./images {
      inherit lib tag;
      pkgs = pkgsFor cloud;
      n2c = inputs.nix2container.packages.${cloud}.nix2container;
      packages = packagesFor cloud;
      inherit (inputs.nix-openclaw.packages.${cloud}) openclaw-gateway;
    };

  manifestsFor =
    {
      tag ? commit,
      settings ? { },
    }:
    import ../k8s/render.nix {
      inherit lib tag settings;
      inherit (inputs) kubenix;
      pkgs = pkgsFor cloud;
      system = cloud;
    };

  hosts = import ./hosts.nix {
    inherit lib nixpkgs;
    inherit (inputs) colmena disko sops-nix;
    pkgs = pkgsFor cloud;
    system = cloud;
  };
in
{
  lib = { inherit imagesFor manifestsFor; };

  packages = each (
    system:
    let
      programs = packagesFor system;
    in
    programs
    // {
      default = programs.token-proxy;
    }
    // lib.optionalAttrs (system == cloud) (
      imagesFor commit
      // {
        k8s-manifests = (manifestsFor { }).directory;
        inherit (inputs.nixos-anywhere.packages.${system}) nixos-anywhere;
      }
    )
  );

  inherit (hosts) nixosConfigurations;
  # colmena reads the first, releases before 0.5 the second.
  colmenaHive = hosts.hive;
  colmena = hosts.raw;

  devShells = each (system: {
    default = import ./shell.nix {
      pkgs = pkgsFor system;
      inherit lib;
    };
    release = import ./release.nix { pkgs = pkgsFor system; };
  });

  formatter = each (system: (pkgsFor system).nixfmt-tree);

  checks.${cloud} = import ./checks.nix {
    inherit self lib hosts;
    pkgs = pkgsFor cloud;
    manifests = manifestsFor { };
    # As scripts/deploy renders them, but for digests.
    environments = lib.mapAttrs' (
      name: _:
      lib.nameValuePair (lib.removeSuffix ".json" name) (manifestsFor {
        settings = lib.importJSON (../k8s/environments + "/${name}");
      })
    ) (builtins.readDir ../k8s/environments);
    # As they are in k8s/golden.
    usual = manifestsFor { tag = "latest"; };
    everything = manifestsFor {
      tag = "latest";
      settings = import ../k8s/everything.nix;
    };
  };
}
