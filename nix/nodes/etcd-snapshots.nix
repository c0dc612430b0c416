# Snapshots of etcd, on this disk and off-site. Where off-site is, and the key for it, is the Secret
# k3s-etcd-snapshot-s3-config of kube-system (scripts/platform-secrets makes it), so that the token
# stays the only secret of a node. Without that Secret the unit fails each time, and says so.
{ config, ... }:
let
  k3s = "${config.services.k3s.package}/bin/k3s";
  offSite = "--etcd-s3 --etcd-s3-config-secret=k3s-etcd-snapshot-s3-config";
in
{
  systemd.services.etcd-snapshot = {
    description = "Snapshot of etcd, here and off-site";
    after = [ "k3s.service" ];
    requisite = [ "k3s.service" ]; # nothing to save while K3s does not run
    serviceConfig = {
      Type = "oneshot";
      TimeoutStartSec = "15min";
      ExecStart = [
        "${k3s} etcd-snapshot save --name=timer --etcd-snapshot-compress ${offSite}"
        # 28 of them, one each six hours, are a week.
        "${k3s} etcd-snapshot prune --name=timer --snapshot-retention=28 ${offSite}"
      ];
      Restart = "on-failure";
      RestartSec = "5min";
    };
    startLimitIntervalSec = 3600;
    startLimitBurst = 3;
  };

  systemd.timers.etcd-snapshot = {
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = "00/6:00:00";
      RandomizedDelaySec = "15min";
      Persistent = true; # one that was missed while the host was off is made up for
    };
  };
}
