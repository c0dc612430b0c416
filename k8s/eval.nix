# Renders the manifests without a flake, from checkouts of kubenix and of nixpkgs (its lib/ is enough):
#
#   nix-instantiate --eval --strict --json k8s/eval.nix --argstr kubenix DIR --argstr nixpkgs DIR -A files
#
# Without the two arguments they are fetched, in the revisions of flake.lock.
{ kubenix ? null, nixpkgs ? null, tag ? "latest", settings ? { }, system ? "x86_64-linux" }:
let
  lock = builtins.fromJSON (builtins.readFile ../flake.lock);
  locked = name: builtins.fetchTree lock.nodes.${lock.nodes.root.inputs.${name}}.locked;
  source = given: name: if given == null then "${locked name}" else given;

  kubenixSource = source kubenix "kubenix";
  lib = import "${source nixpkgs "nixpkgs"}/lib";
  # What evaluation asks of nixpkgs; nothing is built.
  pkgs = {
    inherit lib;
    stdenv.hostPlatform = { inherit system; };
    writeText = builtins.toFile;
    runCommand = _: _: throw "k8s/eval.nix builds nothing: use the flake";
  };

  # As kubenix' own flake has it.
  modules = import "${kubenixSource}/modules";
  extended = lib.extend (l: _: import "${kubenixSource}/lib/upstreamables.nix" { lib = l; inherit pkgs; });
  evalModules = arguments: extended.evalModules {
    modules = arguments.modules ++ [{ _module.args = { inherit pkgs; name = "default"; }; }];
    specialArgs = {
      inherit pkgs;
      kubenix = { lib = import "${kubenixSource}/lib" { inherit pkgs lib; }; inherit modules; evalModules = null; };
    };
  };

  render = more: import ./render.nix {
    kubenix.evalModules.${system} = evalModules;
    inherit pkgs lib system tag;
    settings = lib.recursiveUpdate more settings;
  };
  usual = render { };
  everything = render (import ./everything.nix);
in
{
  inherit (usual) items files texts;

  # What golden/ holds: the files; what rules are played with; and of the rendering with all that is off by
  # default what is other than in that.
  golden = usual.files // {
    promtool = { inherit (usual.texts) "rules_test.yaml"; };
    everything = lib.filterAttrs (name: text: text != usual.files.${name} or null) everything.files;
  };
}
