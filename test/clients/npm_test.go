package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// installLimit is for one `npm ci`; OpenClaw and its 290 packages take 2 minutes where
// the network is good.
const installLimit = 8 * time.Minute

// unusedFor is how long an installation of other versions is kept.
const unusedFor = 14 * 24 * time.Hour

var (
	nodeSDKs    = sync.OnceValues(func() (string, error) { return install("node", "") })
	openclawDir = sync.OnceValues(func() (string, error) {
		// npm installs for the Node that runs it, and OpenClaw wants a new one.
		sdks, err := nodeSDKs()
		if err != nil {
			return "", err
		}
		return install("openclaw", binaries(sdks))
	})
)

func binaries(dir string) string { return filepath.Join(dir, "node_modules", ".bin") }

// install installs what NAME/package-lock.json names into the user's cache directory,
// unless it is there, and returns the directory with node_modules. bin goes in front of
// PATH.
func install(name, bin string) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm is missing, with which the tests install real clients: run scripts/install-deps node, or install Node.js 20 or newer: %w", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("node is missing: run scripts/install-deps node, or install Node.js 20 or newer: %w", err)
	}
	hash := sha256.New()
	files := map[string][]byte{}
	for _, file := range []string{"package.json", "package-lock.json", ".npmrc"} {
		b, err := os.ReadFile(filepath.Join(name, file))
		if err != nil {
			return "", err
		}
		files[file] = b
		fmt.Fprintf(hash, "%s %d\n%s", file, len(b), b)
	}
	fmt.Fprint(hash, runtime.GOOS, "/", runtime.GOARCH)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("a place for node packages: %w", err)
	}
	cache = filepath.Join(cache, "openclaw-cloud")
	dir := filepath.Join(cache, name+"-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	removeUnused(cache, name+"-")
	// Whoever finds the directory finds it complete: it gets its name at the end.
	tmp, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for file, b := range files {
		if err := os.WriteFile(filepath.Join(tmp, file), b, 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), installLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--loglevel=warn")
	cmd.Dir, cmd.Env = tmp, os.Environ()
	if bin != "" {
		cmd.Env = append(cmd.Env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	}
	fmt.Fprintf(os.Stderr, "Installing test/clients/%s into %s (once, up to some minutes)\n", name, dir)
	began := time.Now()
	if err := withProgress(cmd); err != nil {
		return "", fmt.Errorf("npm ci of test/clients/%s: %w", name, err)
	}
	fmt.Fprintf(os.Stderr, "Installed test/clients/%s in %v\n", name, time.Since(began).Round(time.Second))
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
		// Another process was faster.
	}
	return dir, os.Chmod(dir, 0o755)
}

// withProgress runs npm, says every 15 s that it still runs, and tells all it said if it
// fails.
func withProgress(cmd *exec.Cmd) error {
	began, done := time.Now(), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(15 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "  npm ci: %v\n", time.Since(began).Round(time.Second))
			case <-done:
				return
			}
		}
	})
	out, err := cmd.CombinedOutput()
	close(done)
	wg.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// removeUnused removes installations that no test has used for long.
func removeUnused(cache, prefix string) {
	entries, _ := os.ReadDir(cache)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(strings.TrimPrefix(e.Name(), "."), prefix) && time.Since(info.ModTime()) > unusedFor {
			_ = os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
}

// nodeEnv is what a Node program sees of the environment: nothing that configures it.
func nodeEnv(home, bin string) []string {
	return []string{"HOME=" + home, "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8"}
}

// runNode lets a script do the tasks against a proxy.
func runNode(t *testing.T, script, baseURL string, phases [][][]task, announced func(check string)) map[string]seen {
	t.Helper()
	sdks, err := nodeSDKs()
	if err != nil {
		t.Fatal(err)
	}
	// Modules are looked for beside the script.
	dir := t.TempDir()
	scripts, err := filepath.Glob("node/*.mjs")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in node/: %v", err)
	}
	for _, from := range scripts {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(from)), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(sdks, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(map[string]any{"baseURL": baseURL, "phases": phases})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries(sdks), "node"), script)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, nodeEnv(dir, binaries(sdks)), bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]seen{}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var o seen
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			t.Errorf("%s printed %q: %v", script, lines.Text(), err)
			continue
		}
		if o.Announce != "" {
			announced(o.Announce)
			continue
		}
		results[o.Check] = o
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", script, err, stderr.String())
	} else if stderr.Len() > 0 {
		t.Logf("%s wrote: %s", script, stderr.String())
	}
	return results
}
