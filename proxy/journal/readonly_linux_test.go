package journal

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	go func() {
		// This thread, which ends with the goroutine, is an ordinary user's.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := unix.Setfsuid(65534); err != nil {
				errs <- err
				return
			}
		}
		j, err := Open(dir, small)
		if err == nil {
			err = j.Close()
		}
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
}
