package localserver_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

const takesPorts = "LOCALSERVER_TEST_TAKES_PORTS"

// TestMain lets the test program be another process that takes ports until it
// is told to end.
func TestMain(m *testing.M) {
	n, err := strconv.Atoi(os.Getenv(takesPorts))
	if err != nil {
		os.Exit(m.Run())
	}
	out := bufio.NewWriter(os.Stdout)
	for range n {
		port, err := localserver.FreePort()
		if err != nil {
			_, _ = out.WriteString(err.Error() + "\n")
			break
		}
		_, _ = out.WriteString(strconv.Itoa(port) + "\n")
	}
	_ = out.Flush()
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// No two processes are given the same port, though nothing listens on any; the ports of
// one that ended can be had again.
func TestFreePortIsOnesOwn(t *testing.T) {
	const processes, each = 4, 1000 // of 12,000
	t.Setenv("TMPDIR", t.TempDir()) // for the children: their book is another than that of the tests beside us
	round := func() {
		seen := map[string]bool{}
		for range processes {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), takesPorts+"="+strconv.Itoa(each))
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = stdin.Close()
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			}()
			lines := bufio.NewScanner(stdout)
			for i := 0; i < each && lines.Scan(); i++ {
				port := strings.TrimSpace(lines.Text())
				if _, err := strconv.Atoi(port); err != nil || seen[port] {
					t.Fatalf("port %q, given before: %v", port, seen[port])
				}
				seen[port] = true
			}
		}
		if len(seen) != processes*each {
			t.Errorf("%d ports", len(seen))
		}
	}
	for range 4 { // more ports in all than there are
		round()
	}
}

func TestFreePortCanBeListenedOn(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port, err := localserver.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if seen[port] {
			t.Errorf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
