# What every image has beside its program: certificates and time zones. A layer of its own, which all
# images share and a node pulls once. There is no shell, no package manager, and no user but a number.
{ pkgs, n2c }:
rec {
  # cacert's bundle at /etc/ssl/certs, tzdata at /share/zoneinfo.
  root = pkgs.buildEnv {
    name = "root";
    paths = [
      pkgs.cacert
      pkgs.tzdata
    ];
    pathsToLink = [
      "/etc/ssl/certs"
      "/share/zoneinfo"
    ];
  };

  layer = n2c.buildLayer { copyToRoot = root; };

  environment = [
    "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
    "TZDIR=/share/zoneinfo"
    "ZONEINFO=/share/zoneinfo" # as Go calls it
    "TZ=UTC"
  ];

  # Nobody: 65532, as the manifests have it too. It needs no entry anywhere.
  user = "65532:65532";

  labels = tag: {
    "org.opencontainers.image.source" = "https://github.com/andreabadesso/openclaw-cloud";
    "org.opencontainers.image.revision" = tag;
    "org.opencontainers.image.licenses" = "Apache-2.0";
  };
}
