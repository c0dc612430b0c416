package kubebox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// kept is how many built programs stay in the cache, the last used ones: other checkouts may have
// other versions, and a build takes minutes.
const kept = 3

// Build returns the path of the program kubebox, compiled from the module in the directory source. It
// is kept in the user's cache directory under a name that tells all it was made of, so a second
// checkout builds nothing. The first build on a machine takes about ten minutes of two processors and
// 4 GB in Go's build cache; out is told when there is something to wait for. Of several processes that
// want it at once, one builds and the others wait.
func Build(ctx context.Context, source string, out io.Writer) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kubebox: where to keep the built program: %w", err)
	}
	return build(ctx, source, filepath.Join(dir, "openclaw-cloud"), out)
}

func build(ctx context.Context, source, cache string, out io.Writer) (string, error) {
	recipe, err := readRecipe(ctx, source)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "kubebox-"+recipe.digest)
	if used(path) {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("kubebox: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(cache, "kubebox.lock"), out)
	if err != nil {
		return "", err
	}
	defer unlock()
	if used(path) {
		return path, nil // built while we waited
	}
	fmt.Fprintf(out, "Building Kubernetes %s for tests (ten minutes the first time, seconds later) …\n", recipe.version)
	began := time.Now()
	if err := recipe.compile(ctx, path); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "Built %s in %.0f s\n", path, time.Since(began).Seconds())
	return path, removeOld(cache)
}

// used reports whether a built program is there, and notes that it is in use.
func used(path string) bool {
	now := time.Now()
	return os.Chtimes(path, now, now) == nil
}

// recipe is what a program is made of.
type recipe struct {
	source  string
	version string // of Kubernetes, such as v1.37.2
	flags   []string
	digest  string // of all of it
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`)

// readRecipe reads every file of the module, so that go test, which looks at what a test has read,
// knows that its results depend on them.
func readRecipe(ctx context.Context, source string) (*recipe, error) {
	module, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("kubebox: its source is in test/kubebox of a checkout: %w", err)
	}
	version := kubernetesVersion.FindSubmatch(module)
	if version == nil {
		return nil, fmt.Errorf("kubebox: %s/go.mod requires no release of k8s.io/kubernetes", source)
	}
	r := &recipe{source: source, version: string(version[1])}
	const pkg = "k8s.io/component-base/version."
	// Everywhere the same flags: with others all packages would be compiled once more.
	r.flags = []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s",
		pkg, version[1], pkg, version[2], pkg, version[3])}
	goVersion := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	goVersion.Dir = source
	release, err := goVersion.Output()
	if err != nil {
		return nil, fmt.Errorf("kubebox: go env GOVERSION: %w", err)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %s %s %q\n", bytes.TrimSpace(release), runtime.GOOS, runtime.GOARCH, r.flags)
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("kubebox: %w", err)
	}
	slices.Sort(files)
	for _, file := range append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("kubebox: %w", err)
		}
		fmt.Fprintf(hash, "%s %d\n%s", filepath.Base(file), len(content), content)
	}
	r.digest = hex.EncodeToString(hash.Sum(nil)[:8])
	return r, nil
}

// compile builds the program beside path and moves it there, so that nobody sees half of one.
func (r *recipe) compile(ctx context.Context, path string) error {
	next := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(next)
	cmd := exec.CommandContext(ctx, "go", append(r.flags, "-o", next, ".")...)
	cmd.Dir = r.source
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	// The compilers go with the go command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if said, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("kubebox: the build was interrupted; `make deps-cluster` does it ahead of the tests: %w", ctx.Err())
		}
		return fmt.Errorf("kubebox: build: %w\n%s", err, said)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return nil
}

// lock takes the lock of a file; it goes with this process at the latest.
func lock(ctx context.Context, path string, out io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("kubebox: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; said = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("kubebox: lock %s: %w", path, err)
		}
		if !said {
			fmt.Fprintln(out, "Waiting for another process that builds Kubernetes for tests …")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("kubebox: waiting for another process that builds it: %w", ctx.Err())
		}
	}
}

// removeOld keeps the programs that were used last. Whoever runs one that goes can keep running it.
func removeOld(cache string) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	type program struct {
		path string
		used time.Time
	}
	var programs []program
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && strings.HasPrefix(entry.Name(), "kubebox-") {
			programs = append(programs, program{filepath.Join(cache, entry.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(programs, func(a, b program) int { return b.used.Compare(a.used) })
	for _, old := range programs[min(kept, len(programs)):] {
		if err := os.Remove(old.path); err != nil {
			return fmt.Errorf("kubebox: %w", err)
		}
	}
	return nil
}
