# Whether a file of secrets is encrypted by SOPS, for whom, and what it holds. Builtins only. It reads
# the YAML that sops writes: one value per line, everything of sops' own under the key sops.
file:
let
  inherit (builtins)
    concatMap
    elemAt
    filter
    isString
    match
    readFile
    split
    ;
  lines = filter isString (split "\n" (readFile file));
  # Those before sops' own part.
  own =
    (builtins.foldl' (
      acc: line:
      if acc.over || match "sops:.*" line != null then
        acc // { over = true; }
      else
        acc // { lines = acc.lines ++ [ line ]; }
    ) { over = false; lines = [ ]; } lines);
  values = filter (line: match "[[:space:]]*(#.*|---)?" line == null) own.lines;
  entry = match "([A-Za-z0-9_-]+): ENC\\[AES256_GCM,data:[A-Za-z0-9+/=]+,iv:[A-Za-z0-9+/=]+,tag:[A-Za-z0-9+/=]+,type:str]";
  captured = pattern: concatMap (line: let m = match pattern line; in if m == null then [ ] else m) lines;
in
{
  names = concatMap (line: let m = entry line; in if m == null then [ ] else [ (elemAt m 0) ]) values;
  # Lines that are no encrypted value, and what is needed to decrypt and to trust the rest.
  plain = filter (line: entry line == null) values;
  complete = own.over && captured ".*-----BEGIN (AGE) ENCRYPTED FILE-----.*" != [ ] && captured " *mac: (ENC)\\[.*" != [ ];
  recipients = captured "[ -]*recipient: (age1[02-9ac-hj-np-z]+)";
}
