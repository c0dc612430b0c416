package manifests

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// object is what all objects have in common. Its spec is decoded by who knows its kind.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	} `yaml:"metadata"`
	Spec yaml.Node         `yaml:"spec"`
	Data map[string]string `yaml:"data"`

	file string
	all  map[string]any // the whole object
}

func (o *object) String() string {
	return o.file + ": " + o.Kind + " " + o.Metadata.Namespace + "/" + o.Metadata.Name
}

func (o *object) spec(t *testing.T, into any) {
	t.Helper()
	if err := o.Spec.Decode(into); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
}

// rendering is all that one directory of manifests holds.
type rendering struct {
	name    string
	files   map[string][]byte
	objects []*object
}

// root is the module's directory.
func root(t *testing.T) string {
	t.Helper()
	dir, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// usual is the rendering with the default settings.
func usual(t *testing.T) rendering {
	t.Helper()
	return rendering{name: "usual", files: yamlFiles(t, "k8s/golden")}.parsed(t)
}

// everything is the one with all that is off by default. Of it only what is other than in the usual
// one is kept.
func everything(t *testing.T) rendering {
	t.Helper()
	files := yamlFiles(t, "k8s/golden")
	maps.Copy(files, yamlFiles(t, "k8s/golden/everything"))
	return rendering{name: "everything", files: files}.parsed(t)
}

// renderings are both, for tests of what must hold in each.
func renderings(t *testing.T) []rendering { return []rendering{usual(t), everything(t)} }

func yamlFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root(t), dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no manifests in %s: %v", dir, err)
	}
	files := make(map[string][]byte)
	for _, path := range paths {
		files[filepath.Base(path)] = read(t, dir, filepath.Base(path))
	}
	return files
}

func (r rendering) parsed(t *testing.T) rendering {
	t.Helper()
	for _, file := range slices.Sorted(maps.Keys(r.files)) {
		r.objects = append(r.objects, parse(t, file, r.files[file])...)
	}
	return r
}

// parse reads the objects of a file.
func parse(t *testing.T, file string, content []byte) []*object {
	t.Helper()
	var objects []*object
	typed, whole := yaml.NewDecoder(bytes.NewReader(content)), yaml.NewDecoder(bytes.NewReader(content))
	for {
		o := &object{file: file}
		err := typed.Decode(o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err == nil {
			err = whole.Decode(&o.all)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, o)
	}
}

// of returns the objects of a kind.
func (r rendering) of(kind string) []*object {
	var found []*object
	for _, o := range r.objects {
		if o.Kind == kind {
			found = append(found, o)
		}
	}
	return found
}

// one returns the only object of that kind and name.
func (r rendering) one(t *testing.T, kind, namespace, name string) *object {
	t.Helper()
	for _, o := range r.of(kind) {
		if o.Metadata.Namespace == namespace && o.Metadata.Name == name {
			return o
		}
	}
	t.Fatalf("%s has no %s %s/%s", r.name, kind, namespace, name)
	return nil
}

// dir writes the rendering where kubectl can read it, as "nix build" has it in result/.
func (r rendering) dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range r.files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Nix alone can say what k8s/ evaluates to. That it was asked since k8s/, or what k8s/ reads, was changed
// is seen without, and so is a golden file that was changed by hand.
func TestGoldenIsOfTheseSources(t *testing.T) {
	written := make(map[string]string) // sum by path
	for line := range strings.Lines(string(read(t, "k8s/golden/SOURCES"))) {
		if sum, path, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			written[path] = sum
		}
	}
	now := make(map[string]string)
	note := func(name string) { now[name] = fmt.Sprintf("%x", sha256.Sum256(read(t, name))) }
	for _, name := range []string{"flake.lock", "nix/cluster.nix", "nix/platform-secrets.json"} {
		note(name)
	}
	golden := 0
	err := filepath.WalkDir(filepath.Join(root(t), "k8s"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root(t), path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if strings.HasPrefix(name, "k8s/golden/") && name != "k8s/golden/SOURCES" {
			note(name)
			golden++
		} else if filepath.Ext(name) == ".nix" || d.Name() == "operator-access.json" {
			note(name)
		}
		return nil
	})
	if err != nil || golden < 20 || len(now)-golden < 20 {
		t.Fatalf("%d files, %d of them golden: %v", len(now), golden, err)
	}
	for path := range now {
		if written[path] != now[path] {
			t.Errorf("%s has changed since k8s/golden was written: run scripts/manifests write, which needs Nix, and look at what it changes", path)
		}
	}
	for path := range written {
		if now[path] == "" {
			t.Errorf("%s was there when k8s/golden was written, and is gone: run scripts/manifests write", path)
		}
	}
}

// canonical is a value as JSON, by which two can be compared.
func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// has reports whether labels fulfil a selector; one without labels selects everything.
func has(labels, selector map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// ours reports whether an image is built by this project, and its name.
func ours(image string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(image, "ghcr.io/andreabadesso/openclaw-cloud/")
	name, _, _ = strings.Cut(rest, "@")
	name, _, _ = strings.Cut(name, ":")
	return name, ok
}
