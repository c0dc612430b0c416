# What is wrong with cluster.nix, as a list of sentences; empty if nothing is. Builtins only, so that
# any Nix evaluates it without nixpkgs (scripts/nix-check does).
cluster:
let
  inherit (builtins)
    attrNames
    attrValues
    concatMap
    elem
    elemAt
    filter
    isString
    length
    match
    ;
  hosts = cluster.hosts;
  names = attrNames hosts;
  roles = [
    "control-plane"
    "worker"
    "build-host"
  ];
  fields = [
    "ageKey"
    "disk"
    "private"
    "public"
    "role"
    "size"
    "tags"
  ];
  wrong = text: bad: if bad then [ text ] else [ ];
  octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  address = text: isString text && match "${octet}\\.${octet}\\.${octet}\\.${octet}" text != null;
  # The private network is a /24, so an address is in it if the first three numbers agree.
  prefixOf = text: elemAt (match "([0-9]+\\.[0-9]+\\.[0-9]+)\\..*" text) 0;
  slash24 = match "([0-9.]+)\\.0/24" cluster.network.private;
  twice = list: filter (x: length (filter (y: y == x) list) > 1) list;
  missing = host: filter (f: f != "ageKey" && !(host ? ${f})) fields;
  count = role: length (filter (h: h.role or "" == role) (attrValues hosts));

  ofHost =
    name:
    let
      host = hosts.${name};
      node = host.role != "build-host";
    in
    if missing host != [ ] then
      [ "${name} lacks ${toString (missing host)}" ]
    else
      concatMap (f: wrong "${name}: nobody knows the field ${f}" (!elem f fields)) (attrNames host)
      ++ wrong "${name}: the name is no host name" (match "[a-z][a-z0-9-]*[a-z0-9]" name == null)
      ++ wrong "${name}: role ${host.role} is none of ${toString roles}" (!elem host.role roles)
      ++ wrong "${name}: public ${host.public} is no IPv4 address" (!address host.public)
      ++ wrong "${name}: private ${host.private} is not in ${cluster.network.private}" (
        slash24 == null || !address host.private || prefixOf host.private != elemAt slash24 0
      )
      ++ wrong "${name}: private ${host.private} is the gateway" (host.private == cluster.network.gateway)
      ++ wrong "${name}: disk ${host.disk} is no device" (match "/dev/.+" host.disk == null)
      ++ wrong "${name}: the tag ${host.role} is missing" (!elem host.role host.tags)
      ++ wrong "${name}: a node of the cluster needs an ageKey" (node && !(host ? ageKey))
      ++ wrong "${name}: ageKey is no age recipient" (
        host ? ageKey && match "age1[02-9ac-hj-np-z]{58}" host.ageKey == null
      )
      ++ wrong "${name}: a build host may not read the secret of the cluster" (!node && host ? ageKey);

  all = f: map (n: hosts.${n}.${f} or n) names;
  servers = count "control-plane";
in
concatMap ofHost names
++ map (a: "the private address ${a} is used twice") (twice (all "private"))
++ map (a: "the public address ${a} is used twice") (twice (all "public"))
++ map (a: "the ageKey ${a} is used twice") (twice (all "ageKey"))
++ wrong "there is no control plane" (servers == 0)
++ wrong "${toString servers} servers of etcd survive no more than one fewer: have 1, 3 or 5" (
  servers > 0 && servers == servers / 2 * 2
)
++ wrong "there is no worker" (count "worker" == 0)
++ wrong "nobody may sign in: administrators is empty" (cluster.administrators == [ ])
