package archtest

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// trackedFiles returns the text files under version control with their content,
// without the lock files, which tools write. Outside a checkout (a source
// archive) there is nothing to look at.
func trackedFiles(t *testing.T) map[string][]byte {
	t.Helper()
	root := moduleRoot(t)
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	// A checkout that belongs to another account is still one to look at.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.Output()
	if err != nil {
		if !exists(filepath.Join(root, ".git")) {
			t.Log("not a git checkout: tracked files are not looked at")
			return nil
		}
		t.Fatalf("git ls-files: %v", err)
	}
	files := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		base := filepath.Base(name)
		if base == "go.sum" || strings.HasSuffix(base, "-lock.json") || strings.HasSuffix(base, ".lock") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(content[:min(len(content), 8000)], []byte{0}) {
			files[name] = content
		}
	}
	return files
}

// registryHosts returns the hosts from which this machine installs packages.
// They belong to the machine's configuration, not to the project.
func registryHosts() []string {
	var hosts []string
	add := func(text string) {
		for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(",| \n", r) }) {
			if u, err := url.Parse(field); err == nil && strings.Contains(u.Host, ".") {
				hosts = append(hosts, u.Hostname())
			}
		}
	}
	if out, err := exec.Command("go", "env", "GOPROXY").Output(); err == nil {
		add(string(out))
	}
	if out, err := exec.Command("npm", "config", "get", "registry").Output(); err == nil {
		add(string(out))
	}
	return hosts
}

// homePath matches a path into somebody's home directory.
var homePath = regexp.MustCompile(`(?:^|[\s"'=:(])/(?:home|Users)/[a-z][a-z0-9._-]*/`)

func checkTracked(files map[string][]byte, root string, hosts []string) []string {
	var complaints []string
	for name, content := range files {
		n := 0
		for line := range bytes.Lines(content) {
			n++
			at := fmt.Sprintf("%s:%d", name, n)
			for _, host := range hosts {
				if bytes.Contains(line, []byte(host)) {
					complaints = append(complaints, at+": names a package registry; leave that to the machine's configuration")
				}
			}
			// A recorded request shows the home directory of whoever sent it.
			home := !strings.Contains(name, "testdata/") && homePath.Match(line)
			if home || bytes.Contains(line, []byte(root+"/")) {
				complaints = append(complaints, at+": a path of one machine; make it relative to the checkout")
			}
		}
	}
	return complaints
}

func TestTrackedFilesNameNoMachine(t *testing.T) {
	report(t, checkTracked(trackedFiles(t), moduleRoot(t), registryHosts()))
}

func TestTrackedRulesComplain(t *testing.T) {
	files := map[string][]byte{
		"a.md":            []byte("fine: /etc/hosts, src/home/x\nget it from https://packages.example.org/x\n"),
		"b.sh":            []byte("cd /srv/checkout/bin\ncd /srv/checkouts\nHOME=/home/" + "somebody/x\n"),
		"testdata/c.json": []byte("{\"cwd\": \"/home/" + "somebody/x\"}\n"),
	}
	expect(t, checkTracked(files, "/srv/checkout", []string{"packages.example.org"}), 3, "a.md:2", "b.sh:1", "b.sh:3")
}
