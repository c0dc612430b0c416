package archtest

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

// layer is one row of the import table: packages in the tree may import the
// trees in may and nothing else of this module. Test help has to be named itself.
type layer struct {
	tree string
	may  []string
	why  string
}

// layers is the import table. Imports only point down. The first row whose tree
// holds a package counts, so the special cases come first.
func layers() []layer {
	return []layer{
		// What helps tests and development; nothing that is sold is built on it.
		{"internal/archtest", nil, "it looks at files, not at code"},
		{"internal/localserver", nil, "it knows nothing of this system"},
		{"internal/kubebox", nil, "it knows nothing of this system"},
		{"internal/testenv", []string{"internal/localserver", "internal/kubebox"}, "every test imports it: anything else makes cycles"},
		{"internal/devstack", []string{"internal/localserver", "internal/kubebox"}, "it runs the programs as a user would, from outside"},
		{"internal/kimi/kimisim", []string{"internal/kimi"}, "the simulator must not share the proxy's mistakes"},
		{"internal/simulator", nil, "it knows nothing of what is simulated"},
		{"internal/stripesim", nil, "the simulator must not share the mistakes of billing"},
		{"internal/telegramsim", nil, "the simulator must not share the mistakes of what speaks to Telegram"},
		{"quota/quotatest", []string{"quota", "internal/contract"}, "it stands in for the control plane"},
		{"control/storetest", []string{"control/store", "control/jobs", "internal/testenv"}, "it does what control migrate does, and no more"},

		{"internal", nil, "internal/* is the bottom layer"},
		{"quota", []string{"internal/contract", "internal/faultpoint"}, "the limit is arithmetic and Redis, whoever asks"},
		{"proxy", []string{"quota", "internal/contract", "internal/faultpoint", "internal/kimi", "internal/redisclient", "internal/secret"}, "the data plane must run without the control plane"},
		{"control", []string{"quota", "internal/contract", "internal/faultpoint", "internal/kimi", "internal/redisclient", "internal/secret"}, "the control plane meets the proxy in Redis only"},
		{"bench", []string{"internal", "internal/localserver", "internal/testenv", "internal/kimi/kimisim"}, "a benchmark sees the programs from outside"},
		{"test", []string{"internal", "internal/testenv", "internal/kimi/kimisim", "control", "quota", "proxy", "bench"}, "tests of the whole stand on everything but the commands"},
		{"cmd", []string{"internal", "internal/devstack", "internal/kubebox", "internal/kimi/kimisim", "internal/simulator", "internal/stripesim", "internal/telegramsim", "control", "quota", "proxy", "bench"}, "a command wires packages, and imports no other command"},
	}
}

// own reports whether an import path is of this module, and its directory.
func own(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func checkLayers(files []*goFile, table []layer) []string {
	var complaints []string
	for _, f := range files {
		row := rowOf(f.dir(), table)
		if row == nil {
			complaints = append(complaints, fmt.Sprintf("%s: this directory is not in the import table; add it to layers in internal/archtest", f.path))
			continue
		}
		for importPath, at := range f.imports() {
			dir, ours := own(importPath)
			inside := within(dir, unit(f.dir(), row)) && (!helper(dir) || helper(f.dir()))
			if !ours || inside || allowed(dir, row.may) {
				continue
			}
			if f.test() && within(dir, "internal/testenv", "internal/kimi/kimisim", "internal/stripesim", "internal/telegramsim", "quota/quotatest", "control/storetest") {
				continue
			}
			// The proxy's tests publish grants as the control plane does: a second
			// publisher written for them would drift.
			if row.tree == "proxy" && f.test() && within(dir, "control/feed") {
				continue
			}
			complaints = append(complaints, fmt.Sprintf("%s: %s must not import %s: %s", at, row.tree, dir, row.why))
		}
	}
	return complaints
}

func rowOf(dir string, table []layer) *layer {
	for i := range table {
		if within(dir, table[i].tree) {
			return &table[i]
		}
	}
	return nil
}

// unit returns the tree inside which the package in dir may import freely: its
// row's tree, but below internal and cmd only its own part.
func unit(dir string, row *layer) string {
	if row.tree != "internal" && row.tree != "cmd" {
		return row.tree
	}
	parts := strings.SplitN(dir, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

func allowed(dir string, may []string) bool {
	for _, tree := range may {
		if within(dir, tree) && (!helper(dir) || helper(tree)) {
			return true
		}
	}
	return false
}

// helper reports whether a directory holds test help, which product code must
// not import although the tree around it is allowed.
func helper(dir string) bool {
	return within(dir, "internal/archtest", "internal/localserver", "internal/kubebox", "internal/testenv", "internal/devstack", "internal/kimi/kimisim", "internal/simulator", "internal/stripesim", "internal/telegramsim", "quota/quotatest", "control/storetest")
}

func TestImportsPointDown(t *testing.T) {
	report(t, checkLayers(goFiles(t), layers()))
}

func TestLayersComplain(t *testing.T) {
	imports := func(pkg string, paths ...string) string {
		return "package " + pkg + "\nimport (\n_ \"" + strings.Join(paths, "\"\n_ \"") + "\"\n)\n"
	}
	expect(t, checkLayers(source(t,
		"control/api/a.go", imports("api", module+"/proxy"),
		"quota/a.go", imports("quota", module+"/internal/kimi"),
		"internal/contract/a.go", imports("contract", module+"/quota"),
		"proxy/a.go", imports("proxy", module+"/control/store", module+"/internal/testenv"),
		"proxy/b.go", imports("proxy", module+"/quota/quotatest"),
		"control/operator/a.go", imports("operator", module+"/internal/kubebox"),
		"cmd/x/a.go", imports("main", module+"/cmd/y"),
		"internal/kimi/a.go", imports("kimi", module+"/internal/contract"),
		"internal/kimi/b.go", imports("kimi", module+"/internal/kimi/kimisim"),
		"extra/a.go", imports("extra", "fmt"),
		"control/billing/a.go", imports("billing", module+"/internal/stripesim"),
		"internal/telegramsim/a.go", imports("telegramsim", module+"/control/onboarding"),
	), layers()), 13, "control/billing/a.go", "internal/telegramsim/a.go", "internal/kubebox", "control/api/a.go", "quota/a.go", "internal/contract/a.go", "control/store", "internal/testenv", "quota/quotatest", "cmd/y", "internal/kimi/a.go", "internal/kimi/b.go", "extra/a.go")
	expect(t, checkLayers(source(t,
		"proxy/a.go", imports("proxy", module+"/quota", module+"/internal/contract", module+"/proxy/relay", "net/http"),
		"proxy/a_test.go", imports("proxy", module+"/internal/testenv", module+"/internal/kimi/kimisim", module+"/control/feed", module+"/quota/quotatest"),
		"internal/kimi/kimisim/a.go", imports("kimisim", module+"/internal/kimi"),
		"internal/testenv/a.go", imports("testenv", module+"/internal/localserver", module+"/internal/kubebox"),
		"cmd/kimisim/a.go", imports("main", module+"/internal/kimi/kimisim"),
		"cmd/stripesim/a.go", imports("main", module+"/internal/stripesim"),
		"cmd/telegramsim/a.go", imports("main", module+"/internal/telegramsim"),
		"cmd/control/a.go", imports("main", module+"/control/store", module+"/internal/contract"),
	), layers()), 0)
}

// home says which trees may import a family of outside packages.
type home struct {
	packages []string // import path prefixes
	trees    []string
}

func homes() []home {
	return []home{
		{[]string{"github.com/jackc/pgx", "github.com/pressly/goose"}, []string{"control/store"}},
		{[]string{"github.com/riverqueue/river"}, []string{"control/jobs"}},
		{[]string{"k8s.io", "sigs.k8s.io"}, []string{"control/operator"}},
		{[]string{"github.com/stripe"}, []string{"control/billing"}},
		{[]string{"github.com/wneessen/go-mail"}, []string{"control/mail"}},
		{[]string{"github.com/emersion/go-smtp"}, []string{"control/mail", "cmd/control", "test/e2e", "test/monitoring"}}, // the server of tests
		{[]string{"github.com/spf13/cobra", "github.com/spf13/pflag"}, []string{"cmd"}},
	}
}

func checkHomes(files []*goFile, table []home) []string {
	var complaints []string
	for _, f := range files {
		for importPath, at := range f.imports() {
			for _, h := range table {
				if within(importPath, h.packages...) && !within(f.dir(), h.trees...) {
					complaints = append(complaints, fmt.Sprintf("%s: %s is for %s only", at, importPath, strings.Join(h.trees, ", ")))
				}
			}
		}
	}
	return complaints
}

// checkFasthttpServer allows fasthttp's client everywhere and its server in the
// proxy (and in programs that measure it), where its traps are known and tested.
func checkFasthttpServer(files []*goFile) []string {
	const fasthttp = "github.com/valyala/fasthttp"
	var complaints []string
	for _, f := range files {
		if _, ok := f.imports()[fasthttp]; !ok || within(f.dir(), "proxy", "bench") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "fasthttp" {
				name := sel.Sel.Name
				if name == "Server" || name == "RequestCtx" || name == "RequestHandler" ||
					strings.HasPrefix(name, "Serve") || strings.HasPrefix(name, "ListenAndServe") {
					complaints = append(complaints, fmt.Sprintf("%s: fasthttp.%s: the fasthttp server is for proxy only; use net/http", f.at(n.Pos()), name))
				}
			}
			return true
		})
	}
	return complaints
}

// checkLent allows what control/store lends of pgx to control/jobs only, which hands it to
// River's driver: anyone could run SQL by it without an import.
func checkLent(files []*goFile) []string {
	var complaints []string
	for _, f := range files {
		if within(f.dir(), "control/store", "control/jobs") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && (sel.Sel.Name == "RiverPool" || sel.Sel.Name == "RiverTx") {
				complaints = append(complaints, fmt.Sprintf("%s: %s is for control/jobs only", f.at(n.Pos()), sel.Sel.Name))
			}
			return true
		})
	}
	return complaints
}

func TestOutsideSystemsHaveOneHome(t *testing.T) {
	files := goFiles(t)
	report(t, checkLent(files))
	report(t, checkHomes(files, homes()))
	report(t, checkFasthttpServer(files))
}

func TestHomesComplain(t *testing.T) {
	files := source(t,
		"control/api/a.go", "package api\nimport _ \"github.com/jackc/pgx/v5/pgxpool\"\n",
		"control/store/a.go", "package store\nimport _ \"github.com/jackc/pgx/v5\"\n",
		"proxy/a.go", "package proxy\nimport \"github.com/valyala/fasthttp\"\nvar s fasthttp.Server\n",
		"control/web/a.go", "package web\nimport \"github.com/valyala/fasthttp\"\nfunc f(*fasthttp.RequestCtx) {}\nfunc g(*fasthttp.Client) {}\n",
	)
	expect(t, checkHomes(files, homes()), 1, "control/api/a.go:2")
	expect(t, checkFasthttpServer(files), 1, "control/web/a.go:3")
	expect(t, checkLent(source(t,
		"control/api/a.go", "package api\nfunc f(s store) { s.RiverPool().Exec() }\n",
		"control/jobs/a.go", "package jobs\nfunc f(s store) { s.RiverPool() }\n",
	)), 1, "control/api/a.go:2")
}
