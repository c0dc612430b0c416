package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"testing"
)

// checkGlobals forbids package variables that change: they tie tests and
// instances together. A variable that is only ever set where it is declared (an
// error value, a compiled expression, an embedded file, a fixed table) is fine,
// and so is a sync.Pool or sync.Once. Test help, which exists once per test
// process by purpose, is exempt, and so is what kills the process in a drill: no
// program that is shipped is built with it.
func checkGlobals(files []*goFile) []string {
	packages := make(map[string][]*goFile)
	for _, f := range files {
		drill := within(f.dir(), "internal/faultpoint") && f.onlyWith("faultpoints")
		if !f.test() && !f.created && !drill && !within(f.dir(), "internal/testenv") {
			packages[f.dir()] = append(packages[f.dir()], f)
		}
	}
	var complaints []string
	for dir, pkg := range packages {
		var syntax []*ast.File
		for _, f := range pkg {
			syntax = append(syntax, f.syntax)
			complaints = append(complaints, holders(f)...)
		}
		// Only names of this package need resolving, so imports stay unknown and
		// the many errors about them are of no interest.
		config := types.Config{Error: func(error) {}, Importer: noImports{}}
		info := types.Info{Uses: make(map[*ast.Ident]types.Object)}
		checked, _ := config.Check(dir, pkg[0].fset, syntax, &info)
		global := func(id *ast.Ident) bool {
			v, ok := info.Uses[id].(*types.Var)
			return ok && v.Parent() == checked.Scope()
		}
		for _, f := range pkg {
			complaints = append(complaints, changes(f, global)...)
		}
	}
	return complaints
}

// noImports knows no package.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// holders finds package variables of a type whose only use is to be changed.
func holders(f *goFile) []string {
	var complaints []string
	for _, decl := range f.syntax.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			spec := spec.(*ast.ValueSpec)
			for _, t := range append([]ast.Expr{spec.Type}, spec.Values...) {
				if name := holderType(t); name != "" {
					complaints = append(complaints, fmt.Sprintf("%s: a package variable of type %s is shared state; make it a field", f.at(spec.Pos()), name))
				}
			}
		}
	}
	return complaints
}

func holderType(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.UnaryExpr:
		return holderType(t.X)
	case *ast.CompositeLit:
		return holderType(t.Type)
	case *ast.IndexExpr: // atomic.Pointer[T]
		return holderType(t.X)
	case *ast.StarExpr:
		return holderType(t.X)
	case *ast.SelectorExpr:
		x, ok := t.X.(*ast.Ident)
		if !ok {
			return ""
		}
		name := x.Name + "." + t.Sel.Name
		if slices.Contains([]string{
			"sync.Map", "sync.Mutex", "sync.RWMutex", "sync.WaitGroup",
			"atomic.Bool", "atomic.Int32", "atomic.Int64", "atomic.Uint32", "atomic.Uint64", "atomic.Uintptr", "atomic.Pointer", "atomic.Value",
		}, name) {
			return name
		}
	}
	return ""
}

// changes finds where a file changes one of its package's variables.
func changes(f *goFile, global func(*ast.Ident) bool) []string {
	var complaints []string
	changed := func(target ast.Expr) {
		if id := root(target); id != nil && global(id) {
			complaints = append(complaints, fmt.Sprintf("%s: the package variable %s is changed; make it a field", f.at(target.Pos()), id.Name))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, target := range n.Lhs {
				changed(target)
			}
		case *ast.IncDecStmt:
			changed(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				changed(n.Key)
				changed(n.Value)
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, fn.Name) {
				changed(n.Args[0])
			}
		}
		return true
	})
	return complaints
}

// root returns the variable that an assignment to target changes: x for x.f,
// x[i] and *x.
func root(target ast.Expr) *ast.Ident {
	for {
		switch t := target.(type) {
		case *ast.Ident:
			return t
		case *ast.SelectorExpr:
			target = t.X
		case *ast.IndexExpr:
			target = t.X
		case *ast.SliceExpr:
			target = t.X
		case *ast.StarExpr:
			target = t.X
		case *ast.ParenExpr:
			target = t.X
		default:
			return nil
		}
	}
}

func TestPackageVariablesNeverChange(t *testing.T) {
	report(t, checkGlobals(goFiles(t)))
}

func TestGlobalsComplain(t *testing.T) {
	expect(t, checkGlobals(source(t,
		"a/a.go", `package a
import ("errors"; "sync"; "sync/atomic")
var table = map[string]int{"a": 1}
var count int
var last struct{ n int }
var list []int
var ErrX = errors.New("x")
var pool = sync.Pool{}
var lock sync.Mutex
var flag = &atomic.Bool{}
var ptr atomic.Pointer[int]
`,
		"a/b.go", `package a
func f(table map[string]int) { table["mine"] = 1; var list []int; list = nil; _ = list }
func g() { table["b"] = 2 }
func h() { count++; last.n = 1; list = append(list, 1); delete(table, "a") }
func i() error { count := 1; count++; for range count {}; return ErrX }
`,
		"internal/faultpoint/on.go", "//go:build faultpoints\n\npackage faultpoint\nimport \"sync\"\nvar fine sync.Mutex\n",
		"internal/faultpoint/off.go", "//go:build !faultpoints\n\npackage faultpoint\nimport \"sync\"\nvar lock sync.RWMutex\n",
	)), 9, "table is changed", "count is changed", "last is changed", "list is changed", "sync.Mutex", "atomic.Bool", "atomic.Pointer", "a/b.go:3", "a/b.go:4", "internal/faultpoint/off.go:5")
}
