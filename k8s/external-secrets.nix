# Secrets from Vault, by External Secrets Operator: off until openclaw.vault.enable. Then the two Secrets
# are made and kept by it, under the same names and with the same keys, so nothing else changes; Vault
# says who read what, and a value that is replaced there is here within openclaw.vault.refresh. Pods take
# it over when they are restarted (README.md, "Secrets").
{ config, lib, workload, ... }:
let
  cfg = config.openclaw.vault;
  schema = builtins.fromJSON (builtins.readFile ../nix/platform-secrets.json);
  spaces = [ "platform" ] ++ lib.optional config.openclaw.monitoring.enable "monitoring";
  secrets = lib.filterAttrs (_: s: lib.elem s.namespace spaces) schema;

  # Without its CustomResourceDefinition kubenix knows no fields: these are as the operator documents them.
  custom = attrName: kind: { inherit attrName kind; group = "external-secrets.io"; version = "v1"; };
  labels = workload.labels "external-secrets";
in
{
  kubernetes.customTypes = [ (custom "secretStores" "SecretStore") (custom "externalSecrets" "ExternalSecret") ];

  kubernetes.resources = lib.mkIf cfg.enable {
    # Who Vault is asked as: one account in each namespace, which no pod has.
    serviceAccounts = lib.genAttrs spaces (namespace: {
      metadata = { name = "external-secrets"; inherit namespace labels; };
    });
    secretStores = lib.genAttrs spaces (namespace: {
      metadata = { name = "vault"; inherit namespace labels; };
      spec.provider.vault = {
        inherit (cfg) server;
        path = "kv";
        version = "v2";
        auth.kubernetes = { mountPath = cfg.mount; role = cfg.role; serviceAccountRef.name = "external-secrets"; };
      };
    });
    externalSecrets = lib.mapAttrs
      (name: s: {
        metadata = { inherit name labels; inherit (s) namespace; };
        spec = {
          refreshInterval = cfg.refresh;
          secretStoreRef = { kind = "SecretStore"; name = "vault"; };
          # If one is deleted in Vault, the last value stays.
          target = { inherit name; creationPolicy = "Owner"; deletionPolicy = "Retain"; };
          # Every key has to be in Vault, or nothing is written; one that is given later must be named.
          data = lib.mapAttrsToList
            (key: _: { secretKey = key; remoteRef = { key = "${cfg.path}/${name}"; property = key; }; })
            (lib.filterAttrs (key: k: k.from != "later" || lib.elem key cfg.later) s.keys);
        };
      })
      secrets;
  };
}
