//go:build faultpoints

package faultpoint_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

const child = "FAULTPOINT_TEST_CHILD"

// TestChild is the process that dies.
func TestChild(t *testing.T) {
	if os.Getenv(child) == "" {
		return
	}
	faultpoint.Watch(os.Getenv)
	for i := 1; ; i++ {
		faultpoint.At("test.other.before")
		faultpoint.At("test.step.before")
		fmt.Println("passed", i)
		time.Sleep(time.Millisecond)
	}
}

func start(t *testing.T, file string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), child+"=1", faultpoint.FileVariable+"="+file)
	out := &strings.Builder{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

func died(t *testing.T, cmd *exec.Cmd, file string) {
	t.Helper()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v, want SIGKILL", err)
	}
	if b, err := os.ReadFile(file + ".fired"); err != nil || string(b) != "test.step.before\n" {
		t.Errorf("fired: %q, %v", b, err)
	}
}

func TestDiesAtTheNthPassage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "point")
	if err := os.WriteFile(file, []byte("test.step.before 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := start(t, file)
	died(t, cmd, file)
	if s := out.String(); !strings.HasSuffix(s, "passed 2\n") {
		t.Errorf("it died after %q", s)
	}
}

func TestIsArmedWhileItRuns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "point")
	cmd, _ := start(t, file)
	if err := os.WriteFile(file, []byte("test.never.before 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("test.step.before 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	died(t, cmd, file)
}
