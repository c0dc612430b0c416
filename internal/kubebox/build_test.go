package kubebox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// module writes a small module in place of the real one.
func module(t *testing.T, says string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.org/x\n\ngo 1.26\n\nexclude (\n\tk8s.io/kubernetes v1.37.2\n)\n")
	write(t, dir, "go.sum", "")
	write(t, dir, "main.go", fmt.Sprintf("package main\n\nfunc main() { print(%q) }\n", says))
	return dir
}

func write(t *testing.T, dir, file, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBuildHappensOnce(t *testing.T) {
	t.Parallel()
	source, cache := module(t, "hello"), t.TempDir()
	var said [4]bytes.Buffer
	var paths [4]string
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			var err error
			if paths[i], err = build(context.Background(), source, cache, &said[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	built := 0
	for i := range paths {
		if paths[i] != paths[0] {
			t.Errorf("two paths: %s, %s", paths[0], paths[i])
		}
		if strings.Contains(said[i].String(), "Building Kubernetes v1.37.2") {
			built++
		}
	}
	if built != 1 {
		t.Errorf("it was built %d times", built)
	}
	if out, err := exec.Command(paths[0]).CombinedOutput(); err != nil || string(out) != "hello" {
		t.Errorf("it says %q, %v", out, err)
	}
	// Nothing but the program and the lock stays.
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 2 {
		t.Errorf("in the cache: %v, %v", entries, err)
	}
}

// Each of them makes another program of it.
func TestBuildFollowsItsSources(t *testing.T) {
	t.Parallel()
	source, cache := module(t, "hello"), t.TempDir()
	seen := map[string]string{}
	for _, change := range []struct{ file, content string }{
		{"", ""},
		{"main.go", "package main\n\nfunc main() { println() }\n"},
		{"more.go", "package main\n"},
		{"go.sum", "\n"},
		{"go.mod", "module example.org/x\n\ngo 1.26\n\nexclude (\n\tk8s.io/kubernetes v1.37.3\n)\n"},
	} {
		if change.file != "" {
			write(t, source, change.file, change.content)
		}
		path, err := build(context.Background(), source, cache, &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[path]; ok {
			t.Errorf("after %q the program is that after %q", change.file, other)
		}
		seen[path] = change.file
	}
	// And the oldest go.
	if programs, err := filepath.Glob(filepath.Join(cache, "kubebox-*")); err != nil || len(programs) != kept {
		t.Errorf("the cache keeps %v, %v", programs, err)
	}
}

func TestUseKeepsAProgram(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	for i, name := range []string{"kubebox-a", "kubebox-b", "kubebox-c", "kubebox-d", "other"} {
		write(t, cache, name, "")
		at := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(filepath.Join(cache, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if !used(filepath.Join(cache, "kubebox-a")) || used(filepath.Join(cache, "kubebox-e")) {
		t.Error("used does not tell what is there")
	}
	if err := removeOld(cache); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if got := strings.Join(left, " "); got != "kubebox-a kubebox-c kubebox-d other" {
		t.Errorf("left is %s", got)
	}
}

// onWrite does something after each write.
type onWrite struct {
	bytes.Buffer
	then func()
}

func (w *onWrite) Write(p []byte) (int, error) {
	defer w.then()
	return w.Buffer.Write(p)
}

func TestBuildWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	source, cache := module(t, "hello"), t.TempDir()
	unlock, err := lock(context.Background(), filepath.Join(cache, "kubebox.lock"), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	said := &onWrite{then: cancel} // it waits when it says so
	if _, err := build(ctx, source, cache, said); err == nil || !strings.Contains(err.Error(), "waiting for another process") {
		t.Errorf("while another builds: %v", err)
	}
	if strings.Count(said.String(), "Waiting for another process") != 1 {
		t.Errorf("it says %q", said.String())
	}
	unlock()
	if _, err := build(context.Background(), source, cache, said); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	broken := module(t, "hello")
	write(t, broken, "main.go", "package main\n\nfunc main() { nonsense }\n")
	without := module(t, "hello")
	write(t, without, "go.mod", "module example.org/x\n")
	for source, want := range map[string]string{
		broken: "undefined: nonsense", without: "requires no release of k8s.io/kubernetes", t.TempDir(): "its source is in test/kubebox of a checkout",
	} {
		cache := t.TempDir()
		if _, err := build(context.Background(), source, cache, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not %q: %v", want, err)
		}
		if programs, _ := filepath.Glob(filepath.Join(cache, "kubebox-*")); len(programs) > 0 {
			t.Errorf("it left %v", programs)
		}
	}
}
