package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// janitorScript reads what exists from its standard input. When that ends
// because the test process has ended, in whatever way, it ends the processes
// that are still known and removes the directories.
const janitorScript = `trap '' HUP INT TERM
list=
while read -r op signal pid; do
  case $op in
  pid) list="$list $signal:$pid" ;;
  gone) new=; for e in $list; do [ "$e" = "$signal:$pid" ] || new="$new $e"; done; list=$new ;;
  end) list=; break ;;
  esac
done
for e in $list; do kill -"${e%%:*}" "${e#*:}" 2>/dev/null; done
n=0
while [ $n -lt 50 ]; do
  alive=
  for e in $list; do kill -0 "${e#*:}" 2>/dev/null && alive="$alive ${e#*:}"; done
  [ -n "$alive" ] || break
  n=$((n+1)); sleep 0.1
done
[ -z "$alive" ] || kill -KILL $alive 2>/dev/null
rm -rf -- "$1"
`

// janitor is the watching shell of this test process, and the directory it
// removes at the end.
type janitor struct {
	root string

	mu   sync.Mutex
	pipe *os.File
	done chan struct{}
}

// theJanitor starts the watching shell on first use.
var theJanitor = sync.OnceValues(startJanitor)

func startJanitor() (*janitor, error) {
	root, err := os.MkdirTemp("", "openclaw-test-")
	if err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	// Postgres may run as another user, which has to pass through.
	if err := os.Chmod(root, 0o711); err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", janitorScript, "janitor", root)
	cmd.Dir = "/"
	cmd.Stdin = read
	// A session of its own: Ctrl-C in the terminal is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("testenv: start the janitor: %w", err)
	}
	j := &janitor{root: root, pipe: write, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(j.done)
	}()
	return j, nil
}

// note tells the janitor that a process exists (op "pid"), which it would end
// with the named signal, or that it is gone (op "gone").
func (j *janitor) note(op, signal string, pid int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.pipe, "%s %s %d\n", op, signal, pid)
}

// close lets the janitor remove the directory, and waits for it.
func (j *janitor) close() {
	j.mu.Lock()
	j.pipe.Close()
	j.mu.Unlock()
	<-j.done
}

// onLauncher runs f on a thread that lives as long as the process. The kernel
// sends the parent death signal when the *thread* that started a child ends, and
// the Go runtime ends threads as it likes.
func onLauncher(f func() error) error {
	done := make(chan error, 1)
	launcher() <- func() { done <- f() }
	return <-done
}

var launcher = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})
