package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Tree returns the ids of the process and its living descendants.
func (p *Process) Tree() ([]int, error) { return tree(p.PID()) }

// Memory returns the bytes of memory of the process and its living descendants; what they share
// with others is divided among those who share it. To read it takes the kernel milliseconds.
func (p *Process) Memory() (int64, error) {
	pids, err := tree(p.PID())
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		pss, err := parseRollup(b)
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		sum += pss
	}
	return sum, nil
}

// Busy returns how long the machine's processors have worked since it was started, and for how long
// its host has withheld them from work (steal), summed over all of them, in steps of 10 ms.
func Busy() (busy, stolen time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("work of the machine: %w", err)
	}
	return parseBusy(b)
}

// parseBusy reads the first line of /proc/stat: all but idle and waiting for disks.
func parseBusy(b []byte) (busy, stolen time.Duration, err error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, errors.New("unexpected form of /proc/stat")
	}
	var ticks [9]int64
	for i := 1; i < len(ticks); i++ {
		if ticks[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
	}
	const tick = 10 * time.Millisecond
	work := ticks[1] + ticks[2] + ticks[3] + ticks[6] + ticks[7] // user, nice, system, irq, softirq
	return time.Duration(work) * tick, time.Duration(ticks[8]) * tick, nil
}

// Self returns the processor time of this process.
func Self() (time.Duration, error) { return cpuOf(os.Getpid()) }

// Switches returns how often threads of the process and its descendants were put to sleep,
// or set aside for others, since their start.
func (p *Process) Switches() (int64, error) {
	pids, err := tree(p.PID())
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			return 0, fmt.Errorf("threads of %s: %w", p.name, err)
		}
		for _, name := range tasks {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended meanwhile
			}
			n, err := parseSwitches(b)
			if err != nil {
				return 0, fmt.Errorf("threads of %s: %w", p.name, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// parseSwitches adds the two counts of a thread's status.
func parseSwitches(b []byte) (int64, error) {
	sum, found := int64(0), 0
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(line), ":")
		if name != "voluntary_ctxt_switches" && name != "nonvoluntary_ctxt_switches" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("status: %w", err)
		}
		sum += n
		found++
	}
	if found != 2 {
		return 0, errors.New("status has no counts of context switches")
	}
	return sum, nil
}

// parseRollup reads Pss of smaps_rollup, in bytes.
func parseRollup(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "Pss:" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup: %w", err)
		}
		return n * 1024, nil
	}
	return 0, errors.New("smaps_rollup has no Pss")
}

// tree returns pid and the ids of its descendants.
func tree(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := make(map[int][]int)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		child, parent, _, err := parseStat(b)
		if err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], child)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// parseStat reads id, parent and processor time (user and system, in clock ticks of 10 ms)
// of /proc/PID/stat.
func parseStat(b []byte) (pid, parent int, ticks int64, err error) {
	// The name in parentheses may hold spaces and parentheses: count from its end.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return 0, 0, 0, errors.New("unexpected form of /proc/PID/stat")
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 13 {
		return 0, 0, 0, errors.New("/proc/PID/stat is too short")
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	parent, err2 := strconv.Atoi(f[1])
	user, err3 := strconv.ParseInt(f[11], 10, 64)
	system, err4 := strconv.ParseInt(f[12], 10, 64)
	return pid, parent, user + system, errors.Join(err1, err2, err3, err4)
}
