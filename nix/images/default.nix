# The images: one per service, and the gateway of customers' boxes. tag is that of all of them.
{
  lib,
  pkgs,
  n2c,
  packages,
  openclaw-gateway,
  tag,
}:
let
  registry = "ghcr.io/andreabadesso/openclaw-cloud";
  base = import ./base.nix { inherit pkgs n2c; };
  service =
    name: args:
    import ./service.nix (
      {
        inherit
          lib
          n2c
          base
          registry
          name
          tag
          ;
      }
      // args
    );
  role =
    name: ports:
    service name {
      program = packages.control;
      arguments = [ name ];
      inherit ports;
    };
in
{
  token-proxy-image = service "token-proxy" {
    program = packages.token-proxy;
    arguments = [ "-config=/etc/openclaw/token-proxy.json" ];
    ports = [
      8080
      9090
    ];
  };
  api-image = role "api" [
    8000
    8001
    8083
  ];
  operator-image = role "operator" [ 8081 ];
  billing-worker-image = role "billing-worker" [ 8082 ];
  onboarding-agent-image = role "onboarding-agent" [ 9000 ];
  web-image = role "web" [
    3000
    8085
  ];
  openclaw-image = import ./openclaw-gateway.nix {
    inherit
      pkgs
      n2c
      base
      registry
      tag
      openclaw-gateway
      ;
  };
}
