# What in flake.lock does not fit flake.nix, as a list of sentences: an input that is not locked, or
# locked to another repository or branch, or that follows something else. Builtins only, no network.
{
  flake ? import ../flake.nix,
  lock ? builtins.fromJSON (builtins.readFile ../flake.lock),
}:
let
  inherit (builtins)
    attrNames
    concatMap
    elem
    elemAt
    filter
    match
    toJSON
    ;
  wrong = text: bad: if bad then [ text ] else [ ];
  names = attrNames flake.inputs;
  locked = lock.nodes.${lock.root}.inputs;

  ofInput =
    name:
    let
      input = flake.inputs.${name};
      url = match "github:([^/]+)/([^/?]+)(/([^?]+))?" input.url;
      node = lock.nodes.${locked.${name}};
      follows = input.inputs or { };
      path = target: if target == "" then [ ] else filter builtins.isString (builtins.split "/" target);
    in
    if url == null then
      [ "${name}: ${input.url} is not of the form github:OWNER/REPO/BRANCH" ]
    else if !(locked ? ${name}) then
      [ "${name} is not locked" ]
    else
      wrong "${name} is locked to ${node.locked.owner}/${node.locked.repo}" (
        node.locked.type != "github"
        || node.locked.owner != elemAt url 0
        || node.locked.repo != elemAt url 1
        || node.original.owner != elemAt url 0
        || node.original.repo != elemAt url 1
      )
      ++ wrong "${name} is locked to another branch than ${toString (elemAt url 3)}" (
        (node.original.ref or null) != elemAt url 3
      )
      ++ wrong "${name}: no revision" (match "[0-9a-f]{40}" (node.locked.rev or "") == null)
      ++ wrong "${name}: no hash" (match "sha256-[A-Za-z0-9+/]{43}=" (node.locked.narHash or "") == null)
      ++ concatMap (
        of:
        wrong "${name}.${of} follows ${toJSON (node.inputs.${of} or null)}, not ${toJSON follows.${of}.follows}" (
          (node.inputs.${of} or null) != path follows.${of}.follows
        )
      ) (attrNames follows)
      # Whatever an input of ours brings along is named in flake.nix: so each revision is.
      ++ concatMap (of: wrong "${name}.${of} follows nothing" (!(follows ? ${of}))) (attrNames (node.inputs or { }));
in
concatMap ofInput names
++ concatMap (name: wrong "${name} is locked, but no input" (!elem name names)) (attrNames locked)
++ concatMap (
  name: wrong "the lock has a node that nobody uses: ${name}" (!elem name (map (n: locked.${n}) (attrNames locked)))
) (filter (n: n != lock.root) (attrNames lock.nodes))
