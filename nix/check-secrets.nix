# What is wrong with secrets/ and the schema of the platform's Secrets, as a list of sentences.
# Builtins only.
let
  inherit (builtins)
    attrNames
    attrValues
    concatMap
    elem
    filter
    fromJSON
    isString
    match
    readDir
    readFile
    sort
    split
    ;
  cluster = import ./cluster.nix;
  schema = fromJSON (readFile ./platform-secrets.json);
  wrong = text: bad: if bad then [ text ] else [ ];
  sorted = sort (a: b: a < b);
  readers = sorted (
    [ cluster.secretsAdministrator ] ++ concatMap (h: if h ? ageKey then [ h.ageKey ] else [ ]) (attrValues cluster.hosts)
  );

  files = filter (n: match ".*\\.yaml" n != null) (attrNames (readDir ../secrets));
  ofFile =
    name:
    let
      file = import ./secrets.nix (../secrets + "/${name}");
    in
    wrong "secrets/${name} holds something that is not encrypted" (file.plain != [ ])
    ++ wrong "secrets/${name} was not written by sops" (!file.complete)
    ++ wrong "secrets/${name} is not for those whose keys nix/cluster.nix has: run sops updatekeys" (
      sorted file.recipients != readers
    );

  # Text of .sops.yaml that is a recipient.
  rules = filter (w: isString w && match "age1[02-9ac-hj-np-z]{58}" w != null) (
    split "[^a-z0-9]" (readFile ../.sops.yaml)
  );

  formats = [
    "host"
    "https-url"
    "kimi-key"
    "line"
    "pagerduty-key"
    "password"
    "postgres-url"
    "proxy-token"
    "random"
    "redis-url"
    "seal"
    "stripe-key"
    "stripe-webhook"
    "telegram-token"
  ];
  ofKey =
    secret: key:
    let
      k = schema.${secret}.keys.${key};
    in
    wrong "${secret}.${key}: fields are format, from, readers, what" (
      attrNames k != [
        "format"
        "from"
        "readers"
        "what"
      ]
    )
    ++ wrong "${secret}.${key}: nobody knows the format ${k.format}" (!elem k.format formats)
    ++ wrong "${secret}.${key}: from is given, generated, derived or later" (
      !elem k.from [
        "derived"
        "generated"
        "given"
        "later"
      ]
    )
    ++ wrong "${secret}.${key} is read by nobody" (k.readers == { });
  # The keys that the platform's documentation promises.
  promised = [
    "jwt_secret"
    "kimi_api_key"
    "postgres_url"
    "redis_url"
    "stripe_secret_key"
    "stripe_webhook_secret"
  ];
in
wrong "secrets/ holds no file" (files == [ ])
++ concatMap ofFile files
++ wrong "secrets/cluster.yaml must hold k3s_token and nothing else" (
  (import ./secrets.nix ../secrets/cluster.yaml).names != [ "k3s_token" ]
)
++ wrong ".sops.yaml is not for those whose keys nix/cluster.nix has" (sorted rules != readers)
++ concatMap (s: concatMap (ofKey s) (attrNames schema.${s}.keys)) (attrNames schema)
++ concatMap (k: wrong "platform-secrets lacks ${k}" (!(schema.platform-secrets.keys ? ${k}))) promised
