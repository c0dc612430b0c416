package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// builds remembers the binaries of this test process.
type builds struct {
	mu   sync.Mutex
	done map[string]*build
}

type build struct {
	once sync.Once
	path string
	err  error
}

var binaries = &builds{done: make(map[string]*build)}

// BuildBinary builds the main package pkg, a path relative to the module's root
// such as "./cmd/token-proxy", and returns the path of the binary. It is built
// once per test process, with the race detector when the test has it and the program is ours.
func BuildBinary(t testing.TB, pkg string) string {
	t.Helper()
	binaries.mu.Lock()
	b, ok := binaries.done[pkg]
	if !ok {
		b = &build{}
		binaries.done[pkg] = b
	}
	binaries.mu.Unlock()
	b.once.Do(func() { b.path, b.err = buildBinary(pkg) })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

func buildBinary(pkg string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	dir, err := workDir("bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	args := []string{"build", "-buildvcs=false", "-o", path}
	if raceEnabled && strings.HasPrefix(pkg, "./") { // of a program of others it would only cost time
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("testenv: build %s: %w\n%s", pkg, err, out)
	}
	if err := lookAtSources(root, pkg); err != nil {
		return "", err
	}
	return path, nil
}

// sources prints the files of this module that a package is built from, one on a line.
const sources = `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}
{{end}}{{range .CgoFiles}}{{$dir}}/{{.}}
{{end}}{{range .SFiles}}{{$dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$dir}}/{{.}}
{{end}}{{end}}`

// lookAtSources asks for each file that a program is built from. go test remembers which files
// of the module a test has asked for, and takes an earlier result for good while none of them
// has changed. Of a program that the test builds it would know nothing.
func lookAtSources(root, pkg string) error {
	cmd := exec.Command("go", "list", "-deps", "-f", sources, pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("testenv: list the sources of %s: %w", pkg, err)
	}
	for _, file := range append(strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }), filepath.Join(root, "go.sum")) {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("testenv: sources of %s: %w", pkg, err)
		}
	}
	return nil
}

// module is the path of the module whose programs are built. Tests may live in
// a module of their own below it.
const module = "github.com/andreabadesso/openclaw-cloud"

// ModuleRoot returns the directory of this module's go.mod, which is above the
// working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("testenv: %w", err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && slices.Contains(strings.Split(string(b), "\n"), "module "+module) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("testenv: no go.mod of %s above the working directory", module)
		}
		dir = parent
	}
}
