//go:build linux

// Command gateway is all that runs in containers of test/node, by its first argument:
//
//	node …            what stands in for OpenClaw: it answers the kubelet's probes, and tries connections when asked
//	serve NAME LISTENER…  greets whoever connects with its name; LISTENER is tcp:ADDRESS, http:ADDRESS or dns:ADDRESS
//	/pause            waits, as the first process of a pod
//
// It is linked statically, for it is the only file in its image.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// canary is what a gateway tries from its first moment on until it is refused: so its log says how
// long the pod ran without its network policy.
const canary = "postgres.platform.svc.cluster.local:5432"

func main() {
	switch {
	case filepath.Base(os.Args[0]) == "pause":
		// Not select{}: without any other goroutine that is a deadlock.
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
	case filepath.Base(os.Args[0]) == "node":
		fmt.Println("gateway: started")
		go lookForPolicy()
		fail(http.ListenAndServe(":18789", gateway()))
	case len(os.Args) > 3 && os.Args[1] == "serve":
		fail(serve(os.Args[2], os.Args[3:]))
	default:
		fail(fmt.Errorf("usage: gateway serve NAME LISTENER…, or by the name node or pause"))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "gateway:", err)
	os.Exit(1)
}

// gateway answers as OpenClaw's gateway does, and on /try and /self what a test wants to know.
func gateway() http.Handler {
	mux := http.NewServeMux()
	for path, status := range map[string]string{"/startupz": "started", "/healthz": "live"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"ok":true,"status":%q}`, status) })
	}
	mux.HandleFunc("/try", func(w http.ResponseWriter, r *http.Request) {
		seen := try(r.Context(), r.FormValue("kind"), r.FormValue("address"))
		fmt.Printf("gateway: try %s %s: answer %q, error %q\n", r.FormValue("kind"), r.FormValue("address"), seen.Answer, seen.Error)
		reply(w, seen)
	})
	mux.HandleFunc("/self", func(w http.ResponseWriter, _ *http.Request) { reply(w, self()) })
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who is gone gets nothing
}

// lookForPolicy connects to the canary until that is refused.
func lookForPolicy() {
	began, connected := time.Now(), 0
	for ; time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		seen := try(ctx, "tcp", canary)
		cancel()
		// A name that is not known says nothing: what knows it may be there later.
		if strings.HasPrefix(seen.Error, "dial") && !strings.Contains(seen.Error, "lookup") {
			fmt.Printf("gateway: %s is refused %d ms after the start; before that it answered %d times\n", canary, time.Since(began).Milliseconds(), connected)
			return
		}
		if seen.Answer != "" {
			connected++
		}
	}
	fmt.Printf("gateway: %s was not refused within a minute; it answered %d times\n", canary, connected)
}

// facts are what the process is and may do.
type facts struct {
	UID       int               // of the process
	GID       int               //
	Writable  []string          // directories of those that were tried
	Files     []string          // that are there, of those that a pod must not have
	Status    map[string]string // lines of /proc/self/status
	Variables []string          // names in the environment
}

func self() facts {
	f := facts{UID: os.Getuid(), GID: os.Getgid(), Status: make(map[string]string)}
	for _, dir := range []string{"/", "/usr/bin", "/etc/openclaw", "/dev", "/data", "/tmp"} {
		path := filepath.Join(dir, "written-by-test")
		if err := os.WriteFile(path, nil, 0o600); err == nil {
			f.Writable = append(f.Writable, dir)
			_ = os.Remove(path) // it is empty
		}
	}
	for _, path := range []string{"/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets/kubernetes.io/serviceaccount/token", "/etc/openclaw/openclaw.json"} {
		if _, err := os.Stat(path); err == nil {
			f.Files = append(f.Files, path)
		}
	}
	status, _ := os.ReadFile("/proc/self/status") // what is missing the test misses
	for line := range strings.Lines(string(status)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			f.Status[name] = strings.TrimSpace(value)
		}
	}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		f.Variables = append(f.Variables, name)
	}
	return f
}

// serve listens until one of its listeners fails.
func serve(name string, listeners []string) error {
	failed := make(chan error)
	for _, l := range listeners {
		kind, address, _ := strings.Cut(l, ":")
		switch kind {
		case "tcp":
			go func() { failed <- greet(name, address) }()
		case "http":
			go func() {
				failed <- http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
			}()
		case "dns":
			go func() { failed <- answerTCP(address) }()
			go func() { failed <- answerUDP(address) }()
		default:
			return fmt.Errorf("no listener: %s", l)
		}
	}
	fmt.Println("gateway: serving", name, listeners)
	return <-failed
}

// greet tells everybody who connects its name.
func greet(name, address string) error {
	l, err := listen(address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			fmt.Fprintln(c, name)
			c.Close()
		}()
	}
}

// listen binds an address that may not be there yet.
func listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: freeBind}
	return config.Listen(context.Background(), "tcp", address)
}

// freeBind lets a socket have an address that this machine does not have yet.
func freeBind(_, _ string, c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.SOL_IP, syscall.IP_FREEBIND, 1) }); err != nil {
		return err
	}
	return failed
}
