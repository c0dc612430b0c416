package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func attributes(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// cpuOf reads the process's own clock, which is exact and counts threads that have ended
// too; where that is not allowed, the ticks of /proc.
func cpuOf(pid int) (time.Duration, error) {
	const schedulerClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|schedulerClock, &ts); err == nil {
		return time.Duration(ts.Nano()), nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, _, ticks, err := parseStat(b)
	return time.Duration(ticks) * 10 * time.Millisecond, err
}

// Confine leaves this process, and all that it starts from now on, the first n processors. free
// gives it back what it had.
func Confine(n int) (free func(), err error) {
	var before, few unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("processors: %w", err)
	}
	for i := range n {
		few.Set(i)
	}
	if err := confine(&few); err != nil {
		return nil, err
	}
	return func() { _ = confine(&before) }, nil
}

// confine does so for each thread: new ones take it from those that start them.
func confine(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("processors: %w", err)
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("processors: %w", err)
		}
	}
	return nil
}
