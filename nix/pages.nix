# The pages of control/web, built as scripts/build-pages builds them, which checks and tests them besides:
# a directory for each site, to be put at control/web/dist.
{ lib, pkgs }:
let
  app = ../control/web/app;
  package = lib.importJSON (app + "/package.json");
  lock = lib.importJSON (app + "/package-lock.json");

  # As the development shell has it.
  nodejs = pkgs.nodejs_24;
  oldest = lib.removePrefix ">=" package.engines.node;

  # The lock says what a package must be, and not where it is, for that is everyone's own to set. Here they come
  # from where nixpkgs has its own packages of npm from, such as pnpm.
  registry =
    let
      found = builtins.match "(https://[^/]+)/pnpm/-/pnpm-[^/]+" pkgs.pnpm.src.url;
    in
    lib.throwIf (found == null) "nix/pages.nix: pnpm is at ${pkgs.pnpm.src.url}, which names no registry" (lib.head found);
  address =
    path: version:
    let
      name = lib.removePrefix "node_modules/" path;
    in
    "${registry}/${name}/-/${baseNameOf name}-${version}.tgz";

  # Those for other systems are left out: dozens, of which none would be unpacked.
  here = pkgs.stdenv.buildPlatform.node;
  fits = p: lib.elem here.platform (p.os or [ here.platform ]) && lib.elem here.arch (p.cpu or [ here.arch ]);
  kept = lib.filterAttrs (_: fits) lock.packages;
  located = lib.mapAttrs (
    path: p:
    p
    // lib.optionalAttrs (path != "") { resolved = address path p.version; }
    // lib.optionalAttrs (p ? optionalDependencies) {
      optionalDependencies = lib.filterAttrs (name: _: kept ? "node_modules/${name}") p.optionalDependencies;
    }
  ) kept;
in
lib.throwIfNot (lib.versionAtLeast nodejs.version oldest)
  "nix/pages.nix: Node.js is ${nodejs.version}, and control/web/app wants ${oldest}"
  (
    pkgs.buildNpmPackage {
      # No revision: they are built anew when they change.
      name = "openclaw-cloud-pages";
      src = lib.fileset.toSource {
        root = app;
        # Without what npm and the build leave beside the sources.
        fileset = lib.fileset.difference app (lib.fileset.maybeMissing (app + "/node_modules"));
      };
      inherit nodejs;
      npmDeps = pkgs.importNpmLock {
        inherit package;
        packageLock = lock // {
          packages = located;
        };
      };
      inherit (pkgs.importNpmLock) npmConfigHook;
      npmRebuildFlags = [ "--ignore-scripts" ];
      # The build writes them beside the app.
      installPhase = ''
        runHook preInstall
        mkdir $out
        mv ../dist/site ../dist/console $out/
        runHook postInstall
      '';
      meta = {
        description = "The pages of openclaw-cloud: those of customers, and the operations console";
        license = lib.licenses.asl20;
      };
    }
  )
