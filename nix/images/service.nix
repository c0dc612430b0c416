# The image of a service of ours: one static program and base.nix.
{
  lib,
  n2c,
  base,
  registry,
  name,
  tag,
  program,
  arguments,
  ports,
}:
n2c.buildImage {
  name = "${registry}/${name}";
  inherit tag;
  layers = [
    base.layer
    (n2c.buildLayer {
      deps = [ program ];
      layers = [ base.layer ];
    })
  ];
  config = {
    # A manifest's args replace Cmd, so one image also serves for what its program can besides.
    Entrypoint = [ (lib.getExe program) ];
    Cmd = arguments;
    Env = base.environment;
    User = base.user;
    WorkingDir = "/";
    ExposedPorts = lib.genAttrs (map (p: "${toString p}/tcp") ports) (_: { });
    Labels = base.labels tag // {
      "org.opencontainers.image.title" = name;
    };
  };
}
