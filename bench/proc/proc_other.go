//go:build !linux

package proc

import (
	"errors"
	"syscall"
	"time"
)

func attributes(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Setpgid: true}
}

func cpuOf(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

// Confine is possible on Linux only.
func Confine() (cpu int, free func(), err error) { return 0, nil, errors.ErrUnsupported }
