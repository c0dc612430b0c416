# Writes a value as YAML that people can read: two spaces, text of several lines as a block, what could
# be taken for something else in quotation marks. Plain Nix, so that what is reviewed (golden/) and what
# is built are the same bytes, and no program has to be built to render them.
{ lib }:
let
  inherit (builtins) attrNames elem head isAttrs isBool isFloat isInt isList isString match stringLength substring toJSON;

  # Words that YAML 1.1 or 1.2 take for something other than text.
  special = [ "y" "n" "yes" "no" "on" "off" "true" "false" "null" ];

  # Long text is not matched: the regular expressions of Nix are recursive.
  isPlain = s:
    stringLength s < 200
    && match "[A-Za-z/]([A-Za-z0-9_./:@=, -]*[A-Za-z0-9_/=])?" s != null
    && !(lib.hasInfix ": " s)
    && !(lib.hasInfix " -" s)
    && !(elem (lib.toLower s) special);

  isBlock = s:
    lib.hasInfix "\n" s
    && match "[^ \t\n].*" (substring 0 2 s) != null
    && !(lib.hasSuffix "\n\n" s)
    && !(lib.hasInfix "\r" s)
    && !(lib.hasInfix " \n" s);

  text = s: if isPlain s then s else toJSON s;

  scalar = v:
    if v == null then "null"
    else if isBool v then lib.boolToString v
    else if isInt v || isFloat v then toJSON v
    else if v == { } then "{}"
    else if v == [ ] then "[]"
    else if isString v then text v
    else throw "yaml.nix: a value of type ${builtins.typeOf v}";

  # What an object is comes before what is in it.
  keysOf = v:
    let first = lib.filter (k: v ? ${k}) [ "apiVersion" "kind" "metadata" "name" "alert" ];
    in first ++ lib.subtractLists first (attrNames v);

  block = indent: s:
    let
      ends = lib.hasSuffix "\n" s;
      lines = lib.splitString "\n" (lib.removeSuffix "\n" s);
    in
    (if ends then "|" else "|-") + "\n" + lib.concatMapStrings (l: if l == "" then "\n" else "${indent}${l}\n") lines;

  # What follows "key:" or "-", with the line's end; indent is that of what is inside.
  value = indent: v:
    if isAttrs v && v != { } then "\n" + mapping indent v
    else if isList v && v != [ ] then "\n" + sequence indent v
    else if isString v && isBlock v then " " + block indent v
    else " " + scalar v + "\n";

  mapping = indent: v: lib.concatMapStrings (k: "${indent}${text k}:" + value "${indent}  " v.${k}) (keysOf v);

  sequence = indent: v:
    lib.concatMapStrings
      (item:
        let deeper = "${indent}  "; in
        if (isAttrs item && item != { }) || (isList item && item != [ ]) then
          "${indent}- " + lib.removePrefix deeper (if isAttrs item then mapping deeper item else sequence deeper item)
        else "${indent}-" + value deeper item)
      v;
in
{
  # One value, as a document.
  document = v:
    if isAttrs v && v != { } then mapping "" v
    else if isList v && v != [ ] then sequence "" v
    else scalar v + "\n";

  # The same value as JSON, one field on a line, for programs that read no YAML.
  json = v:
    let
      between = indent: open: close: parts:
        if parts == [ ] then open + close
        else "${open}\n" + lib.concatStringsSep ",\n" (map (p: "${indent}  ${p}") parts) + "\n${indent}${close}";
      write = indent: v:
        if isAttrs v then between indent "{" "}" (map (k: "${toJSON k}: ${write "${indent}  " v.${k}}") (keysOf v))
        else if isList v then between indent "[" "]" (map (write "${indent}  ") v)
        else toJSON v;
    in
    write "" v + "\n";
}
