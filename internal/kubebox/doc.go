// Package kubebox prepares a real Kubernetes control plane that runs on loopback and needs no root:
// etcd, the API server, the controller manager, the scheduler, and kwok, which plays nodes on which
// pods become ready without a container. RBAC, admission, quotas and garbage collection are the real
// ones; nothing of a pod runs.
//
// All components are one program, kubebox, whose source is the module test/kubebox. Build compiles it
// once per machine. A ControlPlane lives in a directory, for which Prepare writes certificates and
// kubeconfigs. Like internal/localserver it starts nothing itself: whoever calls it runs what
// Components returns, in this order, and ends it: tests (internal/testenv) and the development stack
// (internal/devstack). The other methods ask the running API server.
//
// All functions are safe for concurrent use, but Prepare must not run twice at once on one directory.
package kubebox
