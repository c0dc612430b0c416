package archtest

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/andreabadesso/openclaw-cloud"

// goFile is one parsed Go file of the main module.
type goFile struct {
	path    string // slash-separated, relative to the module's root
	fset    *token.FileSet
	syntax  *ast.File
	lines   int
	created bool // by a generator
}

// dir is the package's directory relative to the module's root, "." for it.
func (f *goFile) dir() string { return path.Dir(f.path) }

func (f *goFile) test() bool { return strings.HasSuffix(f.path, "_test.go") }

// onlyWith reports whether the file is left out of builds without the tag.
func (f *goFile) onlyWith(tag string) bool {
	for _, group := range f.syntax.Comments {
		for _, c := range group.List {
			if x, err := constraint.Parse(c.Text); err == nil {
				return !x.Eval(func(t string) bool { return t != tag })
			}
		}
	}
	return false
}

// at names a place in the file for a complaint.
func (f *goFile) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(pos).Line)
}

// imports returns the import paths of the file with their places.
func (f *goFile) imports() map[string]string {
	found := make(map[string]string)
	for _, spec := range f.syntax.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			found[name] = f.at(spec.Pos())
		}
	}
	return found
}

// parse makes a goFile of source text.
func parse(fset *token.FileSet, name string, src []byte) (*goFile, error) {
	syntax, err := parser.ParseFile(fset, name, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	return &goFile{
		path:    name,
		fset:    fset,
		syntax:  syntax,
		lines:   strings.Count(string(src), "\n"),
		created: ast.IsGenerated(syntax),
	}, nil
}

// goFiles parses every Go file of the main module, whatever its build tags:
// a rule holds on all systems. Directories that the go command ignores, and
// modules of their own below, are left out.
func goFiles(t *testing.T) []*goFile {
	t.Helper()
	root := moduleRoot(t)
	fset := token.NewFileSet()
	var files []*goFile
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != root && (base == "testdata" || base == "node_modules" || base == "bin" ||
				strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || exists(filepath.Join(name, "go.mod"))) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f, err := parse(fset, filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found: the rules would hold for nothing")
	}
	return files
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(root, "go.mod")) {
		t.Fatal("this test must stay two directories below the module's root")
	}
	return root
}

// source parses made-up files for the tests of the rules: name, text, name, text…
func source(t *testing.T, namesAndTexts ...string) []*goFile {
	t.Helper()
	fset := token.NewFileSet()
	var files []*goFile
	for i := 0; i < len(namesAndTexts); i += 2 {
		f, err := parse(fset, namesAndTexts[i], []byte(namesAndTexts[i+1]))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// within reports whether dir is one of the trees or below one of them.
func within(dir string, trees ...string) bool {
	for _, tree := range trees {
		if dir == tree || strings.HasPrefix(dir, tree+"/") {
			return true
		}
	}
	return false
}

func report(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

// expect checks that a rule complained exactly as often as wanted, and that
// each complaint holds one of the words.
func expect(t *testing.T, complaints []string, want int, words ...string) {
	t.Helper()
	if len(complaints) != want {
		t.Errorf("%d complaints instead of %d: %q", len(complaints), want, complaints)
	}
	for _, word := range words {
		if !strings.Contains(strings.Join(complaints, "\n"), word) {
			t.Errorf("no complaint names %q: %q", word, complaints)
		}
	}
}
