package testenv

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// FreePort returns a loopback TCP port on which nothing listens, and which no
// other test process or benchmark is given while this one lives.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := localserver.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
