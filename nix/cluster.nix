# The hosts and their network, as plain data: no functions, no packages. Everything that is about a
# particular host is here and nowhere else, so adding worker-3 is one entry (README.md says what to
# run then). Addresses and keys are examples: replace them all before the first deployment.
{
  network = {
    private = "10.0.0.0/24";
    # The cloud routes the private network itself: hosts reach each other through this address.
    gateway = "10.0.0.1";
    publicInterface = "enp1s0";
    privateInterface = "enp7s0";
    # The private network's packets are 50 bytes smaller than those outside.
    mtu = 1450;
    pods = "10.42.0.0/16";
    services = "10.43.0.0/16";
  };

  # Who may sign in on the hosts, as user deploy.
  administrators = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqy4QWMMJoWZirKbVNu92u6XZ4Y290x94eHeJSd1K8R example"
  ];

  # Who may read and change secrets/cluster.yaml beside the hosts: an age recipient.
  secretsAdministrator = "age1kc6xx365krmf3uxagm6pgnjc0svtw88lf0eyd8y2r786lrnrcaes2v4u80";

  # Parts of the cluster that K3s installs, pinned.
  charts = {
    ingress-nginx = {
      repo = "https://kubernetes.github.io/ingress-nginx";
      version = "4.15.1";
    };
    cert-manager = {
      repo = "https://charts.jetstack.io";
      version = "v1.21.1";
    };
  };

  # Where certificates of public names come from, and whom they warn before one runs out.
  acme = {
    server = "https://acme-v02.api.letsencrypt.org/directory";
    email = "operations@example.com";
  };

  # role: control-plane (K3s server with etcd), worker (K3s agent), or build-host (no node of the
  # cluster). tags: for colmena apply --on @TAG. ageKey: the host's SSH key as an age recipient,
  # `ssh-keyscan ADDRESS | ssh-to-age`; who has one can read secrets/cluster.yaml.
  hosts = {
    control-plane-1 = {
      role = "control-plane";
      public = "203.0.113.10";
      private = "10.0.0.10";
      size = "cx31";
      disk = "/dev/sda";
      tags = [ "control-plane" ];
      ageKey = "age1gtc76kv7ad2hvunz2p4cwz0pk3p49emz75gkfdh2vhhzv40lwatq839wjk";
    };
    worker-1 = {
      role = "worker";
      public = "203.0.113.11";
      private = "10.0.0.11";
      size = "cx41";
      disk = "/dev/sda";
      tags = [ "worker" ];
      ageKey = "age1uey6e7lwcx85eef3eelm2n5geshzhzjs2hkrv3kvwupuexwc9fys8845wd";
    };
    worker-2 = {
      role = "worker";
      public = "203.0.113.12";
      private = "10.0.0.12";
      size = "cx41";
      disk = "/dev/sda";
      tags = [ "worker" ];
      ageKey = "age1zrghdp8s3efsj4crsua6nw9fqsyjplyyvfq0wwmu00t7qg44k4kqxwamnw";
    };
    build-host = {
      role = "build-host";
      public = "203.0.113.20";
      private = "10.0.0.20";
      size = "cx41";
      disk = "/dev/sda";
      tags = [ "build-host" ];
    };
  };
}
