//go:build linux

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are the paths of what a node needs and this project does not build.
type Programs struct {
	Containerd, Ctr, Runc string
	Plugins               string // directory of CNI's
	KubeRouter            string
}

// FindPrograms finds them, or says all that is missing and what to do about it.
func FindPrograms(kubeRouter string) (Programs, error) {
	var missing []string
	find := func(name string) string {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path
			}
		}
		missing = append(missing, name+": `make deps-node` installs it on Debian")
		return ""
	}
	p := Programs{Containerd: find("containerd"), Ctr: find("ctr"), Runc: find("runc"), KubeRouter: kubeRouter}
	for _, name := range []string{"ip", "nsenter", "unshare", "iptables", "iptables-save", "iptables-restore", "ipset", "nft", "conntrack"} {
		find(name)
	}
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
			p.Plugins = dir
		}
	}
	if p.Plugins == "" {
		missing = append(missing, "CNI's plugins ptp and host-local, in /usr/lib/cni or /opt/cni/bin: `make deps-node` installs them on Debian")
	}
	const have = "take a release from https://github.com/cloudnativelabs/kube-router/releases (2.9 was tried) and run `make node KUBE_ROUTER=/path/to/kube-router`"
	if kubeRouter == "" {
		missing = append(missing, "kube-router, which enforces network policies: "+have)
	} else if out, err := exec.Command(kubeRouter, "--version").CombinedOutput(); err != nil {
		missing = append(missing, fmt.Sprintf("kube-router: %s --version: %v %s: %s", kubeRouter, err, strings.TrimSpace(string(out)), have))
	}
	if os.Geteuid() != 0 {
		missing = append(missing, "root: namespaces, mounts and the firewall need it")
	}
	if len(missing) > 0 {
		return p, fmt.Errorf("node: a real node cannot run here. Missing:\n  - %s", strings.Join(missing, "\n  - "))
	}
	return p, nil
}
