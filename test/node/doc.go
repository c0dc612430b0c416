// Package node runs boxes on a real node: the control plane of testenv, a real kubelet with
// containerd and runc, kube-proxy, and an engine that enforces network policies. There it is seen by
// real connections, over IPv4 and on one node, what the NetworkPolicy of a box lets through.
//
// It needs Linux, root, Debian's packages of `make deps-node`, and a kube-router program, and is no part of
// `make test`: `make node KUBE_ROUTER=/path/to/kube-router` runs it.
//
// Everything runs in namespaces of its own (network, mounts, processes), made by the test program, which starts
// itself again in them. So nothing that a node does to its machine (addresses, firewall, kernel settings,
// files below /run and /var) is seen outside, and when the inner program ends, in whatever way, the kernel
// ends all of it. The cgroups and files that are left the outer program removes.
package node
