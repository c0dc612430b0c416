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

// Confine takes the last of the processors that this process may use from it, and from all that
// it starts from now on, and returns its number. free gives it back. With one processor only there
// is nothing to take: cpu is negative then.
func Confine() (cpu int, free func(), err error) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return 0, nil, fmt.Errorf("processors: %w", err)
	}
	if before.Count() < 2 {
		return -1, func() {}, nil
	}
	few := before
	for cpu = len(before)*strconv.IntSize - 1; !few.IsSet(cpu); cpu-- {
		continue
	}
	few.Clear(cpu)
	free = func() { _ = confine(&before) }
	if err := confine(&few); err != nil {
		free()
		return 0, nil, err
	}
	return cpu, free, nil
}

// confine does so for each thread, until there are no others: a new one takes it from who starts it.
func confine(set *unix.CPUSet) error {
	for again := true; again; {
		again = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("processors: %w", err)
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("processors: %w", err)
			}
			var has unix.CPUSet
			err = unix.SchedGetaffinity(id, &has)
			if err == nil && has != *set {
				again = true
				err = unix.SchedSetaffinity(id, set)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("processors: %w", err)
			}
		}
	}
	return nil
}
