# Renders the manifests: what flake.nix calls, and eval.nix without a flake.
#
#   kubenix   the flake, or what has evalModules.${system} as it has
#   pkgs      nixpkgs; only directory builds something
#   tag       of our images: a commit, or "latest" in development
#   settings  values of options.nix that differ from its defaults
#
# returns
#   items      all objects, in the order in which they are applied
#   files      the same as text, by file name: what golden/ holds
#   directory  a derivation with these files, for kubectl apply -f result/
#   texts      the configuration files inside ConfigMaps that programs of their own check
{ kubenix, pkgs, lib ? pkgs.lib, system, tag, settings ? { } }:
let
  yaml = import ./yaml.nix { inherit lib; };

  evaluated = kubenix.evalModules.${system} {
    modules = [ ./default.nix { openclaw = lib.recursiveUpdate { inherit tag; } settings; } ];
  };

  # What kubenix notes about itself would make every object differ with each version of it.
  clean = object:
    let
      annotations = lib.filterAttrs (n: _: !(lib.hasPrefix "kubenix/" n)) (object.metadata.annotations or { });
      metadata = removeAttrs object.metadata [ "annotations" ];
    in
    object // { metadata = metadata // lib.optionalAttrs (annotations != { }) { inherit annotations; }; };

  # What is not a failed assertion.
  checked =
    let failed = lib.filter (a: !a.assertion) evaluated.config.openclaw.assertions;
    in if failed == [ ] then evaluated
    else throw "k8s: ${lib.concatMapStringsSep "; " (a: a.message) failed}";

  # kubectl applies the files of a directory by their names, and what is in one from top to bottom:
  # namespaces, what must not be without protection for a moment, then what runs.
  fileOf = object:
    let
      labels = object.metadata.labels or { };
      name = labels."app.kubernetes.io/name" or (throw "k8s: ${object.kind} ${object.metadata.name} lacks the label app.kubernetes.io/name");
    in
    if object.kind == "Namespace" then "00-namespaces.yaml"
    else if object.kind == "NetworkPolicy" then "10-network-policies.yaml"
    else if lib.elem object.kind access then "20-access.yaml"
    else "30-${object.metadata.namespace}-${name}.yaml";

  access = [ "ValidatingAdmissionPolicy" "ValidatingAdmissionPolicyBinding" "ServiceAccount" "ClusterRole" "Role" "ClusterRoleBinding" "RoleBinding" ];

  rank = object: lib.lists.findFirstIndex (k: k == object.kind) 50 (access ++ [
    "SecretStore" "ExternalSecret" "ConfigMap" "Service" "PodDisruptionBudget" "StatefulSet" "Deployment" "HorizontalPodAutoscaler" "Ingress"
  ]);
  key = object: [ (fileOf object) (rank object) (object.metadata.namespace or "") object.metadata.name ];
  items = lib.sort (a: b: lib.compareLists lib.compare (key a) (key b) < 0)
    (map clean checked.config.kubernetes.generated.items);

  files = lib.mapAttrs
    (_: objects: lib.concatMapStringsSep "---\n" yaml.document objects)
    (lib.groupBy fileOf items);
in
{
  inherit items files;
  inherit (checked.config.openclaw) texts;

  directory = pkgs.runCommand "openclaw-cloud-manifests" { } ''
    mkdir -p $out
    ${lib.concatStrings (lib.mapAttrsToList (name: text: ''
      cp ${pkgs.writeText name text} $out/${name}
    '') files)}
  '';
}
