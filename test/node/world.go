//go:build linux

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Addresses outside of the cluster. All lead to one network namespace, where something answers that
// would be open to boxes if nothing kept them from it. No packet leaves it.
const (
	Public   = "93.184.215.14"
	Private  = "192.168.77.10"
	Metadata = "169.254.169.254"
	Shared   = "100.100.100.200" // where Alibaba's metadata is
)

const (
	nodeEnd  = "172.31.255.1"
	worldEnd = "172.31.255.2"
)

// world makes what is outside of the cluster, and the way there.
func (n *Node) world(gateway string) {
	n.t.Helper()
	listeners := []string{"serve", "outside"}
	for _, address := range outside() {
		for _, port := range []string{"80", "443", "5432", "6379"} {
			listeners = append(listeners, "tcp:"+address+":"+port)
		}
		listeners = append(listeners, "dns:"+address+":53")
	}
	// With lo up, the kernel has a table of addresses. Before, it takes every address for one of broadcast when
	// a socket is bound, and answers to UDP would come from another one.
	p := n.start("outside", "unshare", append([]string{"--net", "sh", "-c", `ip link set lo up && exec "$@"`, "sh", gateway}, listeners...)...)
	log := filepath.Join(n.dir, "outside.log")
	n.until(10*time.Second, func() string {
		text, err := os.ReadFile(log)
		if p.Ended() || !strings.Contains(string(text), "serving") {
			return fmt.Sprintf("nothing serves outside: %v", err)
		}
		return ""
	})
	pid := fmt.Sprint(p.Pid())
	n.run("ip", "link", "add", "outside", "type", "veth", "peer", "name", "cluster", "netns", pid)
	n.run("ip", "address", "add", nodeEnd+"/30", "dev", "outside")
	n.run("ip", "link", "set", "outside", "up")
	inside := func(args ...string) {
		n.t.Helper()
		n.run("nsenter", append([]string{"--target", pid, "--net", "ip"}, args...)...)
	}
	inside("address", "add", worldEnd+"/30", "dev", "cluster")
	inside("link", "set", "cluster", "up")
	inside("route", "add", "default", "via", nodeEnd)
	for _, address := range outside() {
		inside("address", "add", address+"/32", "dev", "lo")
		n.run("ip", "route", "add", address+"/32", "via", worldEnd, "dev", "outside")
	}
}

func outside() []string { return []string{Public, Private, Metadata, Shared} }
