//go:build linux

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups is where the system has its cgroups: version 2, or a directory for each controller.
const cgroups = "/sys/fs/cgroup"

// Sandboxed runs this program again with one more argument, -inside=GROUP, in namespaces of its own, and
// returns its exit code. GROUP is a cgroup for the node. What is left when it has ended is removed.
func Sandboxed(args []string) (code int, err error) {
	dir, err := os.MkdirTemp("", "openclaw-node-")
	if err != nil {
		return 1, fmt.Errorf("node: %w", err)
	}
	// Postgres runs as another user, which has to pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return 1, fmt.Errorf("node: %w", err)
	}
	group := filepath.Base(dir)
	defer func() { err = errors.Join(err, removeCgroups(group), os.RemoveAll(dir)) }()
	if err := makeCgroups(group); err != nil {
		return 1, err
	}
	program, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("node: %w", err)
	}
	cmd := exec.Command(program, append(slices.Clone(args), "-inside="+group)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The inner program ends with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Ctrl-C and a timeout's SIGTERM end the inner program, and this one goes on to clean up.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("node: start in namespaces of its own: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-stop:
		_ = cmd.Process.Kill() // the first process of its namespace, so all others go with it
		err = <-ended
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 1, fmt.Errorf("node: %w", err)
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		code = 1 // by a signal
	}
	return code, nil
}

// hierarchies are the directories in which a cgroup has to be made.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	var list []string
	for _, entry := range entries {
		path := filepath.Join(cgroups, entry.Name())
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err == nil && entry.IsDir() {
			list = append(list, path)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("node: no cgroups below %s", cgroups)
	}
	return list, nil
}

func makeCgroups(group string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, path := range list {
		if err := os.Mkdir(filepath.Join(path, group), 0o755); err != nil {
			return fmt.Errorf("node: make a cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroups removes a cgroup and all below it. The last processes in it may still be ending.
func removeCgroups(group string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, path := range list {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := removeCgroup(filepath.Join(path, group))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("node: remove a cgroup: %w", err)
			}
		}
	}
	return nil
}

func removeCgroup(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// kernelSettings are those that a kubelet sets for the whole machine unless they are so: it shall find
// that they are.
func kernelSettings() map[string]string {
	return map[string]string{
		"/proc/sys/vm/overcommit_memory": "1", "/proc/sys/vm/panic_on_oom": "0",
		"/proc/sys/kernel/panic": "10", "/proc/sys/kernel/panic_on_oops": "1",
		"/proc/sys/kernel/keys/root_maxkeys": "1000000", "/proc/sys/kernel/keys/root_maxbytes": "25000000",
	}
}

// enter makes the namespaces that Sandboxed has started this process in fit for a node.
func enter() error {
	work := os.TempDir()
	scratch := filepath.Join(work, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil { // Postgres runs as another user, which passes through
		return fmt.Errorf("node: %w", err)
	}
	mounts := []struct {
		source, target, kind, data string
		flags                      uintptr
	}{
		{"", "/", "", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", "", 0},
		{"tmpfs", "/run", "tmpfs", "mode=755", 0},
		{"tmpfs", scratch, "tmpfs", "mode=755", 0},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("node: mount %s: %w", m.target, err)
		}
	}
	// What is written below /var is lost with the namespace.
	upper, workdir := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, dir := range []string{upper, workdir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	if err := unix.Mount("overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir="+upper+",workdir="+workdir); err != nil {
		return fmt.Errorf("node: mount /var: %w", err)
	}
	for path, value := range kernelSettings() {
		file := filepath.Join(scratch, strings.ReplaceAll(path, "/", "-"))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return fmt.Errorf("node: %w", err)
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("node: mount %s: %w", path, err)
		}
	}
	for path, value := range map[string]string{"/proc/sys/net/ipv4/ip_forward": "1", "/proc/sys/net/ipv4/conf/all/rp_filter": "0", "/proc/sys/net/ipv4/conf/default/rp_filter": "0"} {
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	return unix.Sethostname([]byte(Name))
}
