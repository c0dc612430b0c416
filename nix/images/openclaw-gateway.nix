# The OpenClaw gateway, one per customer. The operator starts it as `node /app/openclaw.mjs gateway
# run`, whatever Entrypoint says, and gives it all configuration at run time.
#
# nix-openclaw installs a wrapper for desktops beside the program, which is a shell script. It is left
# out here, and with it bash; what the wrapper sets is in Env.
{
  pkgs,
  n2c,
  base,
  registry,
  tag,
  openclaw-gateway,
}:
let
  node = pkgs.nodejs-slim_22; # that of nix-openclaw, without npm

  program = openclaw-gateway.overrideAttrs (old: {
    pname = "openclaw-gateway-image-content";
    installPhase = old.installPhase + "\nrm -r $out/bin\n";
    disallowedRequisites = [ pkgs.bash ];
  });

  root = pkgs.runCommand "openclaw-root" { } ''
    mkdir -p $out/bin
    ln -s ${program}/lib/openclaw $out/app
    ln -s ${node}/bin/node $out/bin/node
  '';

  # The runtime changes with nixpkgs, OpenClaw each few days.
  runtime = n2c.buildLayer {
    deps = [ node ];
    layers = [ base.layer ];
    maxLayers = 10;
  };
in
n2c.buildImage {
  name = "${registry}/openclaw-gateway";
  inherit tag;
  layers = [
    base.layer
    runtime
    (n2c.buildLayer {
      deps = [ program ];
      layers = [
        base.layer
        runtime
      ];
    })
  ];
  copyToRoot = root;
  config = {
    Entrypoint = [
      "node"
      "--optimize-for-size"
      "/app/openclaw.mjs"
      "gateway"
      "run"
    ];
    Env = base.environment ++ [
      "PATH=/bin"
      "NODE_ENV=production"
      "OPENCLAW_NIX_MODE=1"
      "OPENCLAW_DISABLE_PERSISTED_PLUGIN_REGISTRY=1"
    ];
    User = base.user;
    WorkingDir = "/";
    ExposedPorts."18789/tcp" = { };
    Labels = base.labels tag // {
      "org.opencontainers.image.title" = "openclaw-gateway";
      "org.opencontainers.image.version" = openclaw-gateway.version;
    };
  };
}
