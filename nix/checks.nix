# What `nix flake check` builds, and `nix flake check --no-build` at least evaluates to the end.
# Without these it forces neither a node nor the hive.
{
  self,
  lib,
  pkgs,
  hosts,
  manifests,
  environments,
  usual,
  everything,
}:
let
  # A derivation that exists only if value evaluates to the end, and that builds none of it.
  evaluates = name: value: pkgs.writeText name (builtins.unsafeDiscardStringContext value);

  secrets = lib.filter (lib.hasSuffix ".yaml") (lib.attrNames (builtins.readDir ../secrets));
  encrypted =
    name:
    let
      file = import ./secrets.nix (../secrets + "/${name}");
    in
    if file.plain != [ ] then
      throw "secrets/${name} holds values in the clear"
    else if !file.complete then
      throw "secrets/${name} was not written by sops"
    else if file.names == [ ] then
      throw "secrets/${name} is empty"
    else
      "${name}: ${toString file.names}";

  # What is built is what was reviewed. Of everything only what differs from the usual is kept.
  golden =
    dir:
    lib.mapAttrs (name: _: builtins.readFile (dir + "/${name}")) (
      lib.filterAttrs (name: _: lib.hasSuffix ".yaml" name) (builtins.readDir dir)
    );
  differs =
    kept: files: lib.filter (name: kept.${name} or null != files.${name} or null) (lib.attrNames (kept // files));
  old =
    differs (golden ../k8s/golden) usual.files
    ++ differs (golden ../k8s/golden // golden ../k8s/golden/everything) everything.files;
in
lib.mapAttrs' (
  name: host: lib.nameValuePair "node-${name}" (evaluates name host.config.system.build.toplevel.drvPath)
) hosts.nixosConfigurations
// {
  hive = evaluates "hive" (
    builtins.toJSON {
      systems = lib.mapAttrs (_: t: t.drvPath) hosts.hive.toplevel;
      deployment = lib.mapAttrs (_: d: { inherit (d) targetHost targetUser tags; }) hosts.hive.deploymentConfig;
    }
  );

  manifests = evaluates "manifests" (
    if old != [ ] then
      throw "k8s/golden is not what k8s/ evaluates to, in ${toString old}: scripts/manifests write"
    else
      builtins.toJSON manifests.items
  );

  environments = evaluates "environments" (builtins.toJSON (lib.mapAttrs (_: e: e.items) environments));

  images = evaluates "images" (
    builtins.toJSON (
      lib.mapAttrs (_: i: i.drvPath) (lib.filterAttrs (n: _: lib.hasSuffix "-image" n) self.packages.${pkgs.stdenv.hostPlatform.system})
    )
  );

  secrets = evaluates "secrets" (
    if secrets == [ ] then throw "secrets/ holds no file" else lib.concatMapStringsSep "\n" encrypted secrets
  );

  shells = evaluates "shells" (
    builtins.toJSON (lib.mapAttrs (_: s: s.drvPath) self.devShells.${pkgs.stdenv.hostPlatform.system})
  );
}
