// Package testenv gives tests real surroundings: private Redis and Postgres
// servers and a Kubernetes control plane on loopback, built binaries of this module, free ports, and a check
// that nothing was left behind.
//
// Whatever it starts or writes ends with the test, and with the test process
// also when that is killed: on Linux the kernel ends the servers together with
// it, and everywhere a small watching shell ends what is left and removes the
// directories. A missing program fails the test and says how to install it;
// tests are never skipped for it.
//
// A package whose tests call Postgres or Kubernetes should have
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// so that the shared servers are shut down in order.
//
// All functions are safe for concurrent use by parallel tests, NoLeaks
// excepted. The package imports nothing of this module but
// internal/localserver and internal/kubebox.
package testenv
