# Evaluation fails, not the start of a node, where a secret that it wants is missing from its file,
# is not encrypted, or is not encrypted for this host.
{
  config,
  host,
  hostName,
  lib,
  ...
}:
let
  fileOf = secret: import ../secrets.nix secret.sopsFile;
in
{
  assertions = lib.concatLists (
    lib.mapAttrsToList (
      name: secret:
      let
        file = fileOf secret;
      in
      [
        {
          assertion = file.plain == [ ] && file.complete;
          message = "${baseNameOf secret.sopsFile} is not encrypted by sops";
        }
        {
          assertion = lib.elem secret.key file.names;
          message = "${hostName}: the secret ${secret.key} is missing from ${baseNameOf secret.sopsFile}";
        }
        {
          assertion = lib.elem host.ageKey file.recipients;
          message = "${hostName} cannot decrypt ${baseNameOf secret.sopsFile}: run sops updatekeys (nix/README.md)";
        }
      ]
    ) config.sops.secrets
  );
}
