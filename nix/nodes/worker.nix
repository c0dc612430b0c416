# A K3s agent: it joins the first server over the private network, and takes what comes from outside.
{ cluster, lib, ... }:
let
  servers = lib.filterAttrs (_: h: h.role == "control-plane") cluster.hosts;
  first = servers.${lib.head (lib.attrNames servers)};
in
{
  imports = [ ./k3s.nix ];

  services.k3s = {
    role = "agent";
    serverAddr = "https://${first.private}:6443";
    nodeLabel = [ "openclaw.cloud/ingress=true" ];
  };

  # ingress-nginx, whose pod has the ports of the node.
  networking.firewall.interfaces.${cluster.network.publicInterface}.allowedTCPPorts = [
    80
    443
  ];
}
