package archtest

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// trackedFiles returns the files under version control with their content, without the
// lock files, which tools write. Outside a checkout (a source archive) there is nothing to
// look at.
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
		files[name] = content
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

// secretShape matches secrets of those that we deal with, and private keys, as they look when
// they are real: fakes of tests say that they are fake.
var secretShape = regexp.MustCompile(`\b(?:sk|rk)_live_[0-9A-Za-z]{10}|\bwhsec_[A-Za-z0-9+/]{24}|\bsk-[A-Za-z0-9]{30}|` +
	`-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30}|\b[0-9]{8,10}:[A-Za-z0-9_-]{35}\b|` +
	`\bAGE-SECRET-KEY-1[0-9A-Z]{20}|hooks\.slack\.com/services/T[0-9A-Z]{6}`)

// programHeads are what built programs and libraries begin with: of Linux, of macOS in both
// byte orders and for several processors, and of Windows.
var programHeads = [][]byte{
	[]byte("\x7fELF"), []byte("\xcf\xfa\xed\xfe"), []byte("\xce\xfa\xed\xfe"), []byte("\xfe\xed\xfa"), []byte("\xca\xfe\xba\xbe"), []byte("MZ\x90\x00"),
	[]byte("!<arch>\n"), []byte("\x00asm"),
}

// maxTracked is how many bytes a tracked file may have: what is larger is made, not written.
const maxTracked = 1 << 20

func checkTracked(files map[string][]byte, root string, hosts []string) []string {
	var complaints []string
	for name, content := range files {
		if slices.ContainsFunc(programHeads, func(head []byte) bool { return bytes.HasPrefix(content, head) }) {
			complaints = append(complaints, name+": a built program; it is in every clone for good once it is committed")
			continue
		}
		if len(content) > maxTracked {
			complaints = append(complaints, fmt.Sprintf("%s: %d bytes; a tracked file has %d at most", name, len(content), maxTracked))
			continue
		}
		if bytes.Contains(content[:min(len(content), 8000)], []byte{0}) {
			continue // not text
		}
		n := 0
		for line := range bytes.Lines(content) {
			n++
			at := fmt.Sprintf("%s:%d", name, n)
			for _, host := range hosts {
				if bytes.Contains(line, []byte(host)) {
					complaints = append(complaints, at+": names a package registry; leave that to the machine's configuration")
				}
			}
			if secretShape.Match(line) {
				complaints = append(complaints, at+": looks like a secret; if it is one, it is known now and has to be replaced")
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
		"d.yaml":          []byte("key: sk_live_" + "0123456789abcdef\n-----BEGIN RSA " + "PRIVATE KEY-----\nkey: sk_test_fake\nhook: whsec_fake_one\n"),
		"ctl":             []byte("\x7fELF\x02\x01\x01\x00\x00"),
		"ctl.exe":         []byte("MZ\x90\x00\x03\x00"),
		"large.txt":       bytes.Repeat([]byte("x"), maxTracked+1),
		"picture.png":     []byte("\x89PNG\r\n\x1a\n\x00\x00"),
	}
	secrets := []string{
		"rk_live_" + "0123456789", "whsec_" + "0123456789abcdefghijklmn", "sk-" + "0123456789abcdefghijklmnopqrst", "AKIA" + "0123456789ABCDEF",
		"ghp_" + "0123456789abcdefghijklmnopqrst", "12345678:" + "0123456789abcdefghijklmnopqrstuvwxy", "AGE-SECRET-KEY-1" + "0123456789ABCDEFGHIJ",
		"https://hooks.slack.com/services/" + "T012345/B012345/x",
	}
	for _, secret := range secrets {
		if c := checkTracked(map[string][]byte{"e.txt": []byte("x " + secret + "\n")}, "/srv/checkout", nil); len(c) != 1 {
			t.Errorf("%s: complaints %q", secret, c)
		}
	}
	expect(t, checkTracked(files, "/srv/checkout", []string{"packages.example.org"}), 8, "a.md:2", "b.sh:1", "b.sh:3", "d.yaml:1", "d.yaml:2",
		"ctl: a built", "ctl.exe: a built", "large.txt: 1048577")
}
