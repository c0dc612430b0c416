# The programs of cmd/, each a package of its own, and the pages that control has in it.
{
  lib,
  pkgs,
  revision,
}:
let
  go = import ./go.nix { inherit lib pkgs; };
  buildGoModule = pkgs.buildGoModule.override { inherit go; };
  pages = import ./pages.nix { inherit lib pkgs; };

  # What Go reads, tests included: `go mod vendor` follows their imports as well. Documents, scripts
  # and Nix files change without a new build.
  # The pages are built by themselves.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.difference (lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../bench
      ../cmd
      ../control
      ../internal
      ../proxy
      ../quota
      ../test
    ]) ../control/web/app;
  };

  program =
    name: description:
    buildGoModule ({
      pname = name;
      version = revision;
      inherit src;
      # Of all of go.sum that is needed here. scripts/nix-check says what it must be.
      vendorHash = lib.trim (builtins.readFile ./vendor.hash);
      subPackages = [ "cmd/${name}" ];
      env.CGO_ENABLED = 0;
      ldflags = [
        "-s"
        "-w"
        "-X main.builtFrom=${revision}"
      ];
      # `make test` runs them, with the Redis, Postgres and Kubernetes that they want.
      doCheck = false;
      # Of what an image is made. Go leaves tzdata, iana-etc and mailcap in it, and nothing that runs.
      disallowedRequisites = [
        pkgs.bash
        pkgs.coreutils
      ];
      meta = {
        inherit description;
        homepage = "https://github.com/andreabadesso/openclaw-cloud";
        license = lib.licenses.asl20;
        mainProgram = name;
        platforms = lib.platforms.unix;
      };
    }
    // lib.optionalAttrs (name == "control") {
      # Where go:embed takes them. Not before the build, for what is done there is done for the modules too.
      postConfigure = ''
        rm -rf control/web/dist/site control/web/dist/console
        cp -r ${pages}/. control/web/dist/
        chmod -R u+w control/web/dist
      '';
    });
in
lib.mapAttrs program {
  token-proxy = "Authenticates, limits, forwards and meters LLM requests";
  control = "The control plane of openclaw-cloud: api, operator, billing-worker, migrate";
  openclawctl = "The operators' command line of openclaw-cloud";
  kimisim = "A simulator of Kimi on a real socket";
  stripesim = "A simulator of Stripe, with pages on which people pay with no money";
  telegramsim = "A simulator of Telegram, with pages on which people write to bots";
  openclaw-bench = "Measures token-proxy beside its peers";
  devstack = "Starts all of openclaw-cloud on loopback";
}
// {
  inherit pages;
}
