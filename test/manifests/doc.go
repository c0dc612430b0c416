// Package manifests tests what k8s/ renders to, which is kept in k8s/golden: that a real API
// server takes it, that its parts fit each other, and that they fit the programs that run in it.
// That the golden files are what k8s/ evaluates to needs Nix, and is scripts/manifests' to say.
package manifests
