# What servers and agents of K3s have in common: the token, the flags of the kubelet and of flannel,
# and the ports that nodes have open for each other, on the private network only.
{
  cluster,
  config,
  host,
  ...
}:
let
  inherit (cluster) network;
in
{
  # The only secret of a node. It is decrypted with the node's SSH host key.
  sops = {
    defaultSopsFile = ../../secrets/cluster.yaml;
    age.sshKeyPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
    gnupg.sshKeyPaths = [ ];
    secrets.k3s_token = {
      mode = "0400";
      restartUnits = [ "k3s.service" ];
    };
  };

  services.k3s = {
    enable = true;
    tokenFile = config.sops.secrets.k3s_token.path;
    nodeIP = host.private;
    extraFlags = [
      "--flannel-iface=${network.privateInterface}"
      # Only told, not used: nodes speak with each other by nodeIP. The operator closes to boxes the
      # addresses that nodes have; without this one they would reach the ingress of the host by it.
      "--node-external-ip=${host.public}"
      # The kubelet refuses to start where the kernel is set otherwise than it expects (below).
      "--protect-kernel-defaults"
      "--kube-proxy-arg=nodeport-addresses=${network.private}"
    ];
    # Pods get their SIGTERM before the network goes; token-proxy ends its streams in this time.
    gracefulNodeShutdown = {
      enable = true;
      shutdownGracePeriod = "3m";
      shutdownGracePeriodCriticalPods = "30s";
    };
    extraKubeletConfig = {
      imageGCHighThresholdPercent = 80;
      imageGCLowThresholdPercent = 70;
      containerLogMaxSize = "20Mi";
      containerLogMaxFiles = 3;
      systemReserved = {
        cpu = "200m";
        memory = "512Mi";
        ephemeral-storage = "2Gi";
      };
      evictionHard = {
        "memory.available" = "256Mi";
        "nodefs.available" = "8%";
        "nodefs.inodesFree" = "5%";
        "imagefs.available" = "8%";
      };
    };
  };
  services.logind.settings.Login.InhibitDelayMaxSec = 210; # longer than the kubelet's grace

  networking.firewall = {
    interfaces = {
      ${network.privateInterface} = {
        allowedTCPPorts = [ 10250 ]; # kubelet: logs, exec, metrics
        allowedUDPPorts = [ 51820 ]; # flannel's WireGuard
      };
      # Pods that speak to the kubelet of their own node.
      cni0.allowedTCPPorts = [ 10250 ];
    };
  };

  boot.kernel.sysctl = {
    # What --protect-kernel-defaults looks for.
    "vm.overcommit_memory" = 1;
    "vm.panic_on_oom" = 0;
    "kernel.panic" = 10;
    "kernel.panic_on_oops" = 1;
    "kernel.keys.root_maxbytes" = 25000000;
    "kernel.keys.root_maxkeys" = 1000000;
    # Each gateway watches files; the defaults end at a few dozen of them.
    "fs.inotify.max_user_instances" = 8192;
    "fs.inotify.max_user_watches" = 524288;
  };

  # Nodes run what was built elsewhere: colmena copies it to them.
  nix.settings.max-jobs = 0;
  # The kubelet removes images of containers; this is Nix' own.
  nix.gc.options = "--delete-older-than 7d";
}
