# The compiler that go.mod asks for. nixpkgs' own is used where it is new enough; while it is not, its
# recipe builds the release below. The hash is of the release as Go's distpack makes it from its tree, and was not
# compared with go.dev's file yet: the first build tells. Who changes the version finds its hash there.
{ lib, pkgs }:
let
  wanted = lib.head (builtins.match ".*\ngo ([0-9.]+)\n.*" (builtins.readFile ../go.mod));
  release = {
    version = "1.26.8";
    hash = "sha256-Tjm5jkL5RvoFrIvFtxh335fb23y7Gnd7VBZnrXEX/S4=";
  };
in
if lib.versionAtLeast pkgs.go_1_26.version wanted then
  pkgs.go_1_26
else if release.version == wanted then
  pkgs.go_1_26.overrideAttrs {
    inherit (release) version;
    src = pkgs.fetchurl {
      url = "https://go.dev/dl/go${release.version}.src.tar.gz";
      inherit (release) hash;
    };
  }
else
  throw "nix/go.nix: go.mod wants Go ${wanted}; write that version and the hash of its source here"
