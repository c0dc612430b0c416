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

// Usage is what a process and its descendants have used.
type Usage struct {
	CPU time.Duration // on all processors, kernel time included, since the start
	PSS int64         // bytes of memory; what is shared is divided among those who share it
	RSS int64         // bytes of memory, shared ones included
}

// Tree returns the ids of the process and its living descendants.
func (p *Process) Tree() ([]int, error) { return tree(p.PID()) }

// CPU returns the processor time of the process and its living descendants. What ended
// before is not in it, so workers must not come and go while one measures.
func (p *Process) CPU() (time.Duration, error) {
	pids, err := tree(p.PID())
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return 0, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		sum += d
	}
	return sum, nil
}

// Usage returns memory too; to read it takes the kernel milliseconds.
func (p *Process) Usage() (Usage, error) {
	pids, err := tree(p.PID())
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for _, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return Usage{}, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		u.CPU += d
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return Usage{}, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		pss, rss, err := parseRollup(b)
		if err != nil {
			return Usage{}, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		u.PSS += pss
		u.RSS += rss
	}
	return u, nil
}

// Busy returns how long the machine's processors have worked since it was started, summed
// over all of them, in steps of 10 ms.
func Busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("work of the machine: %w", err)
	}
	return parseBusy(b)
}

// parseBusy reads the first line of /proc/stat: all but idle and waiting for disks.
func parseBusy(b []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 8 || f[0] != "cpu" {
		return 0, errors.New("unexpected form of /proc/stat")
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
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

// parseRollup reads Pss and Rss of smaps_rollup, in bytes.
func parseRollup(b []byte) (pss, rss int64, err error) {
	pss, rss = -1, -1
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "Pss:" && f[0] != "Rss:" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("smaps_rollup: %w", err)
		}
		if f[0] == "Pss:" {
			pss = n * 1024
		} else {
			rss = n * 1024
		}
	}
	if pss < 0 || rss < 0 {
		return 0, 0, errors.New("smaps_rollup has no Pss and Rss")
	}
	return pss, rss, nil
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
