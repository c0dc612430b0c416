package devstack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// identity returns what tells the process pid from every other process that had
// or will have the same id: the boot and its start time. It returns "" when the
// process does not exist or has ended and only waits to be collected.
func identity(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if os.IsNotExist(err) || strings.Contains(err.Error(), "no such process") {
			return "", nil
		}
		return "", fmt.Errorf("devstack: look at process %d: %w", pid, err)
	}
	// The program's name in parentheses may hold anything: count from its end.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const state, startTime = 0, 19 // fields 3 and 22 of proc(5)
	if len(fields) <= startTime {
		return "", fmt.Errorf("devstack: look at process %d: unexpected content of its stat file", pid)
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return "", nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("devstack: look at process %d: %w", pid, err)
	}
	return strings.TrimSpace(string(boot)) + "/" + fields[startTime], nil
}
