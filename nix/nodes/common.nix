# What all hosts are: disk, network, SSH, Nix. The nodes of the cluster also import k3s.nix.
{
  cluster,
  host,
  hostName,
  lib,
  modulesPath,
  ...
}:
let
  inherit (cluster) network;
in
{
  imports = [
    (modulesPath + "/profiles/qemu-guest.nix")
    ./disk.nix
  ];

  networking = {
    inherit hostName;
    useNetworkd = true;
    useDHCP = false;
    firewall = {
      enable = true;
      # Answers of pods on other nodes come in by the tunnel, and leave by another interface.
      checkReversePath = "loose";
      # Nothing on all interfaces: each rule names the one that it is for.
      interfaces.${network.publicInterface}.allowedTCPPorts = [ 22 ];
    };
  };

  systemd.network = {
    networks = {
      "10-public" = {
        matchConfig.Name = network.publicInterface;
        networkConfig = {
          DHCP = "ipv4";
          IPv6AcceptRA = true;
        };
      };
      "20-private" = {
        matchConfig.Name = network.privateInterface;
        address = [ "${host.private}/32" ];
        linkConfig.MTUBytes = toString network.mtu;
        networkConfig.LinkLocalAddressing = "no";
        routes = [
          {
            Destination = "${network.gateway}/32";
            Scope = "link";
          }
          {
            Destination = network.private;
            Gateway = network.gateway;
            GatewayOnLink = true;
          }
        ];
      };
    };
    # The network is up when both are: K3s listens on the private one.
    wait-online.anyInterface = false;
  };

  services.openssh = {
    enable = true;
    openFirewall = false; # only on the public interface, above
    hostKeys = [
      {
        type = "ed25519";
        path = "/etc/ssh/ssh_host_ed25519_key";
      }
    ];
    settings = {
      PermitRootLogin = "no";
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      AllowUsers = [ "deploy" ];
      X11Forwarding = false;
      AllowAgentForwarding = false;
      AllowTcpForwarding = "local"; # kubectl through a tunnel to 6443, README.md
      MaxAuthTries = 3;
      LoginGraceTime = 20;
    };
  };

  users = {
    mutableUsers = false;
    users.deploy = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
      openssh.authorizedKeys.keys = cluster.administrators;
    };
  };
  # There are no passwords on these hosts: who holds the key of deploy administers them.
  security.sudo = {
    wheelNeedsPassword = false;
    execWheelOnly = true;
  };

  nix = {
    settings = {
      experimental-features = [
        "nix-command"
        "flakes"
      ];
      # colmena copies what the build host or an administrator has built.
      trusted-users = [ "deploy" ];
      allowed-users = [ "@wheel" ];
      auto-optimise-store = true;
      # Before the disk is full, while something is copied or built.
      min-free = 2 * 1024 * 1024 * 1024;
      max-free = 8 * 1024 * 1024 * 1024;
    };
    gc = {
      automatic = true;
      dates = "weekly";
      randomizedDelaySec = "3h";
      options = lib.mkDefault "--delete-older-than 14d";
    };
    channel.enable = false;
  };

  boot = {
    tmp.cleanOnBoot = true;
    loader.grub.configurationLimit = 10;
  };
  services.journald.extraConfig = ''
    SystemMaxUse=1G
  '';
  zramSwap.enable = lib.mkDefault false; # the kubelet counts memory, not what swap pretends
  time.timeZone = "UTC";
  i18n.defaultLocale = "C.UTF-8";
  documentation.enable = false;
  system.stateVersion = "26.05";
}
