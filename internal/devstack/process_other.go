//go:build !linux

package devstack

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// identity returns what tells the process pid from every other process that had
// or will have the same id: its start time. It returns "" when the process does
// not exist or has ended and only waits to be collected.
func identity(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("devstack: look at process %d: %w", pid, err)
	}
	state, started, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if state == "" || strings.HasPrefix(state, "Z") {
		return "", nil
	}
	return strings.Join(strings.Fields(started), "-"), nil
}
