//go:build !faultpoints

package faultpoint_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

func TestNothingIsReadWithoutTheTag(t *testing.T) {
	faultpoint.Watch(func(name string) string {
		t.Errorf("asked the environment for %s", name)
		return ""
	})
}

// What is inlined and empty is not there.
func TestMarksAreInlined(t *testing.T) {
	out, err := exec.Command("go", "build", "-gcflags=-m", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"At", "Watch"} {
		if !strings.Contains(string(out), "can inline "+name) {
			t.Errorf("%s is not inlined: %s", name, out)
		}
	}
}
