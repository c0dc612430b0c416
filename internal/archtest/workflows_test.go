package archtest

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// checkWorkflows holds what GitHub's workflows must not do, of which actionlint knows nothing: run
// what others can change, have rights or secrets that they do not need, run for hours, or take a
// text of strangers for a command.
func checkWorkflows(files map[string][]byte) []string {
	var complaints []string
	for name, content := range files {
		workflow := path.Dir(name) == ".github/workflows"
		if !workflow && !strings.HasPrefix(name, ".github/actions/") || path.Ext(name) != ".yml" && path.Ext(name) != ".yaml" {
			continue
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(content, &doc); err != nil || len(doc.Content) == 0 {
			complaints = append(complaints, fmt.Sprintf("%s: no YAML: %v", name, err))
			continue
		}
		w := &workflowFile{name: name, files: files}
		if workflow {
			w.whole(doc.Content[0])
		}
		w.walk(doc.Content[0])
		complaints = append(complaints, w.complaints...)
	}
	return complaints
}

// workflowFile collects what is wrong with one file.
type workflowFile struct {
	name       string
	files      map[string][]byte
	complaints []string
}

func (w *workflowFile) complain(n *yaml.Node, format string, args ...any) {
	w.complaints = append(w.complaints, fmt.Sprintf("%s:%d: ", w.name, n.Line)+fmt.Sprintf(format, args...))
}

// field is a mapping's value; nil if it has none of this name.
func field(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// whole looks at what only a workflow has: triggers, rights, jobs.
func (w *workflowFile) whole(root *yaml.Node) {
	triggers := triggersOf(field(root, "on"))
	if slices.Contains(triggers, "pull_request_target") || slices.Contains(triggers, "workflow_run") {
		w.complain(root, "it runs with secrets on what strangers have written; use pull_request")
	}
	switch p := field(root, "permissions"); {
	case p == nil:
		w.complain(root, "it says nothing of permissions, and has those of the repository: begin with permissions: {}")
	case p.Kind != yaml.MappingNode || !readsOnly(p):
		w.complain(p, "all of its jobs may do this: permit it in the job that needs it")
	}
	strangers := slices.Contains(triggers, "pull_request")
	jobs := field(root, "jobs")
	if jobs == nil || len(jobs.Content) == 0 {
		w.complain(root, "it has no jobs")
		return
	}
	for i := 0; i+1 < len(jobs.Content); i += 2 {
		id, job := jobs.Content[i], jobs.Content[i+1]
		if field(job, "uses") == nil && field(job, "timeout-minutes") == nil {
			w.complain(id, "the job %s has no timeout-minutes, and would run for six hours", id.Value)
		}
		if p := field(job, "permissions"); p != nil && (p.Kind != yaml.MappingNode || strangers && !readsOnly(p)) {
			w.complain(p, "the job %s may do too much", id.Value)
		}
		if s := field(job, "secrets"); s != nil && s.Value == "inherit" {
			w.complain(s, "the job %s hands on all secrets: name those that are needed", id.Value)
		}
		w.order(id, job, jobs)
	}
	if strangers && mentions(root, secrets) {
		w.complain(root, "pull requests must not need secrets")
	}
}

// order looks at what has to come before a job.
func (w *workflowFile) order(id, job, jobs *yaml.Node) {
	var needs []string
	if n := field(job, "needs"); n != nil && n.Kind == yaml.ScalarNode {
		needs = append(needs, n.Value)
	} else if n != nil {
		for _, one := range n.Content {
			needs = append(needs, one.Value)
		}
	}
	if p := field(field(job, "permissions"), "packages"); p != nil && p.Value == "write" && !slices.ContainsFunc(needs, func(name string) bool {
		uses := field(field(jobs, name), "uses")
		return uses != nil && path.Base(uses.Value) == "check.yml"
	}) {
		w.complain(id, "the job %s publishes what was not checked: it needs one that uses check.yml", id.Value)
	}
	if steps := field(job, "steps"); steps != nil && (len(needs) == 0 || field(job, "environment") == nil) &&
		slices.ContainsFunc(steps.Content, func(s *yaml.Node) bool {
			u := field(s, "uses")
			return u != nil && u.Value == "./.github/actions/deploy"
		}) {
		w.complain(id, "the job %s deploys without an environment, whose reviewers are asked, or what it deploys was not verified before", id.Value)
	}
}

// triggersOf are the events of "on", in each of its three forms.
func triggersOf(on *yaml.Node) []string {
	var names []string
	switch {
	case on == nil:
	case on.Kind == yaml.ScalarNode:
		names = append(names, on.Value)
	default:
		for i, n := range on.Content {
			if on.Kind == yaml.SequenceNode || i%2 == 0 {
				names = append(names, n.Value)
			}
		}
	}
	return names
}

// readsOnly reports whether permissions let nothing be changed.
func readsOnly(p *yaml.Node) bool {
	for i := 1; i < len(p.Content); i += 2 {
		if v := p.Content[i].Value; v != "read" && v != "none" {
			return false
		}
	}
	return true
}

func mentions(n *yaml.Node, what *regexp.Regexp) bool {
	return what.MatchString(n.Value) || slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return mentions(c, what) })
}

// secrets matches an expression with a secret, also with all of them.
var secrets = regexp.MustCompile(`\$\{\{[^}]*\bsecrets\b`)

// pinned matches an action at a commit; released the comment that says which release that is.
var (
	pinned   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)+@[0-9a-f]{40}$`)
	released = regexp.MustCompile(`^# v[0-9]+(?:\.[0-9]+)*$`)
	script   = regexp.MustCompile(`\bscripts/[a-z0-9-]+`)
)

// walk looks at every step, wherever it is.
func (w *workflowFile) walk(n *yaml.Node) {
	if uses := field(n, "uses"); uses != nil && uses.Kind == yaml.ScalarNode {
		switch {
		case strings.HasPrefix(uses.Value, "./"): // of this commit
		case !pinned.MatchString(uses.Value):
			w.complain(uses, "%s is not pinned: write the full commit, for tags can be moved", uses.Value)
		case !released.MatchString(uses.LineComment):
			w.complain(uses, "%s: say behind it which release that is, such as # v1.2.3", uses.Value)
		}
		if strings.HasPrefix(uses.Value, "actions/checkout@") {
			if p := field(field(n, "with"), "persist-credentials"); p == nil || p.Value != "false" {
				w.complain(uses, "the checkout leaves a token to all steps behind it: persist-credentials: false")
			}
		}
	}
	if run := field(n, "run"); run != nil && run.Kind == yaml.ScalarNode {
		if strings.Contains(run.Value, "${{") {
			w.complain(run, "the text of an expression becomes part of a command: give it by env")
		}
		for _, s := range script.FindAllString(run.Value, -1) {
			if _, ok := w.files[s]; !ok {
				w.complain(run, "there is no %s", s)
			}
		}
	}
	for _, c := range n.Content {
		w.walk(c)
	}
}

func TestWorkflowsAreSafe(t *testing.T) {
	files := trackedFiles(t)
	if files == nil {
		return // no checkout, as trackedFiles has said
	}
	for _, must := range []string{"check", "deliver", "release", "rollback"} {
		if _, ok := files[".github/workflows/"+must+".yml"]; !ok {
			t.Errorf("there is no workflow %s: the rules would hold for nothing", must)
		}
	}
	report(t, checkWorkflows(files))
}

func TestWorkflowsComplain(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	job := func(text string) []byte {
		return []byte("on: push\npermissions: {}\njobs:\n  a:\n    timeout-minutes: 1\n    steps:\n" + text)
	}
	expect(t, checkWorkflows(map[string][]byte{
		".github/workflows/tag.yml":      job("      - uses: owner/action@v1 # v1\n"),
		".github/workflows/short.yml":    job("      - uses: owner/action@0123456789ab # v1\n"),
		".github/workflows/docker.yml":   job("      - uses: docker://image:1\n"),
		".github/workflows/unnamed.yml":  job("      - uses: owner/action@" + commit + "\n"),
		".github/workflows/vague.yml":    job("      - uses: owner/action/sub@" + commit + " # newest\n"),
		".github/workflows/token.yml":    job("      - uses: actions/checkout@" + commit + " # v1\n"),
		".github/workflows/shell.yaml":   job("      - run: echo ${{ github.head_ref }}\n"),
		".github/workflows/script.yml":   job("      - run: scripts/gone now\n"),
		".github/actions/x/action.yml":   []byte("runs:\n  steps:\n    - uses: owner/action@main\n"),
		".github/workflows/silent.yml":   []byte("on: push\njobs: {a: {timeout-minutes: 1}}\n"),
		".github/workflows/all.yml":      []byte("on: push\npermissions: write-all\njobs: {a: {timeout-minutes: 1}}\n"),
		".github/workflows/writes.yml":   []byte("on: push\npermissions: {contents: write}\njobs: {a: {timeout-minutes: 1}}\n"),
		".github/workflows/long.yml":     []byte("on: push\npermissions: {}\njobs: {a: {steps: []}}\n"),
		".github/workflows/empty.yml":    []byte("on: push\npermissions: {}\n"),
		".github/workflows/target.yml":   []byte("on: [push, pull_request_target]\npermissions: {}\njobs: {a: {timeout-minutes: 1}}\n"),
		".github/workflows/inherit.yml":  []byte("on: push\npermissions: {}\njobs: {a: {uses: ./x.yml, secrets: inherit}}\n"),
		".github/workflows/secret.yml":   []byte("on: {pull_request: {}}\npermissions: {}\njobs: {a: {timeout-minutes: 1, env: {K: '${{ secrets.K }}'}}}\n"),
		".github/workflows/every.yml":    []byte("on: {pull_request: {}}\npermissions: {}\njobs: {a: {timeout-minutes: 1, env: {K: '${{ toJSON(secrets) }}'}}}\n"),
		".github/workflows/stranger.yml": []byte("on: pull_request\npermissions: {}\njobs: {a: {timeout-minutes: 1, permissions: {packages: write}}}\n"),
		".github/workflows/broken.yml":   []byte("on: [\n"),
		".github/workflows/early.yml":    []byte("on: push\npermissions: {}\njobs: {c: {uses: ./.github/workflows/check.yml}, a: {needs: b, timeout-minutes: 1, permissions: {packages: write}}, b: {timeout-minutes: 1}}\n"),
		".github/workflows/direct.yml":   job("      - uses: ./.github/actions/deploy\n    environment: production\n"),
		".github/workflows/nowhere.yml":  job("      - uses: ./.github/actions/deploy\n    needs: a\n"),
	}), 24, "tag.yml:7: owner/action@v1 is not pinned", "short.yml:7", "docker.yml:7", "unnamed.yml:7: owner", "vague.yml", "token.yml:7: the checkout",
		"shell.yaml:7: the text", "there is no scripts/gone", "action.yml:3", "silent.yml:1: it says nothing", "all.yml:2: all of its jobs", "writes.yml:2",
		"long.yml:3: the job a has no timeout", "empty.yml:1: it has no jobs", "target.yml:1: it runs with secrets", "inherit.yml:3", "secret.yml:1: pull requests", "every.yml:1: pull requests",
		"stranger.yml:3: the job a may do too much", "stranger.yml:3: the job a publishes", "broken.yml: no YAML",
		"early.yml:3: the job a publishes", "direct.yml:4: the job a deploys", "nowhere.yml:4: the job a deploys")
	expect(t, checkWorkflows(map[string][]byte{
		"scripts/there": nil,
		".github/workflows/fine.yml": []byte("on: {push: {}, pull_request: {}}\npermissions: {contents: read}\njobs:\n  a:\n    uses: ./.github/workflows/other.yml\n" +
			"  c:\n    needs: [a, b]\n    environment: staging\n    timeout-minutes: 1\n    steps:\n      - uses: ./.github/actions/deploy\n" +
			"  b:\n    timeout-minutes: 1\n    permissions: {contents: read}\n    steps:\n      - uses: owner/action@" + commit + " # v1.2.3\n" +
			"      - uses: actions/checkout@" + commit + " # v7\n        with: {persist-credentials: false}\n      - run: scripts/there \"$X\"\n        env: {X: '${{ github.head_ref }}'}\n"),
		"docs/workflow.yml": []byte("uses: x\n"),
	}), 0)
}
