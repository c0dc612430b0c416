package clients_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// The OpenAPI documents of the running api lint clean, and clients that are generated from them
// work.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	a := startAPI(t)
	dir := t.TempDir()
	var documents []string
	for name, url := range map[string]string{"customers": a.customers, "operators": a.operators} {
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, get(t, url+"/openapi.json"), 0o600); err != nil {
			t.Fatal(err)
		}
		documents = append(documents, path)
	}
	t.Run("lint", func(t *testing.T) {
		t.Parallel()
		sdks, err := nodeSDKs() // with a new Node
		if err != nil {
			t.Fatal(err)
		}
		modules, err := install("openapi", binaries(sdks))
		if err != nil {
			t.Fatal(err)
		}
		lint := func(documents ...string) (string, error) {
			path := "PATH=" + binaries(sdks) + string(os.PathListSeparator) + os.Getenv("PATH")
			args := append([]string{"lint", "--config", abs(t, "openapi/redocly.yaml"), "--format", "stylish"}, documents...)
			return run(t, dir, []string{path}, filepath.Join(binaries(modules), "redocly"), args...)
		}
		if out, err := lint(documents...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		// It can complain.
		broken := filepath.Join(dir, "broken.json")
		b, err := os.ReadFile(documents[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(broken, []byte(strings.ReplaceAll(string(b), `"operationId": "signIn"`, `"operationID": "signIn"`)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := lint(broken); err == nil || !strings.Contains(out, "operationID") {
			t.Errorf("a document with a mistake lints clean:\n%s", out)
		}
	})
	t.Run("generated", func(t *testing.T) {
		t.Parallel()
		// The generated files lie beside the packages' own only as far as the compiler sees.
		overlay := map[string]map[string]string{"Replace": {}}
		for _, name := range []string{"customers", "operators"} {
			file := filepath.Join(dir, name+".go")
			out, err := run(t, ".", nil, "go", "tool", "oapi-codegen", "-generate", "types,client", "-package", name, "-o", file, filepath.Join(dir, name+".json"))
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			overlay["Replace"][filepath.Join(abs(t, "openapi"), name, "client.go")] = file
		}
		b, err := json.Marshal(overlay)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "overlay.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		env := []string{"CUSTOMERS_URL=" + a.customers, "OPERATORS_URL=" + a.operators, "OPERATOR_EMAIL=" + operatorEmail, "OPERATOR_PASSWORD=" + operatorPassword}
		if out, err := run(t, ".", env, "go", "run", "-tags", "generated", "-overlay", path, "./openapi/smoke"); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, a.said())
		}
	})
}

const (
	operatorEmail    = "ops@example.com"
	operatorPassword = "correct horse battery staple"
)

// runningAPI is the program, as a process.
type runningAPI struct {
	customers, operators string // base URLs
	said                 func() string
}

func startAPI(t *testing.T) runningAPI {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	customers, operators, probes := address(), address(), address()
	env := []string{
		"DATABASE_URL=" + testenv.Postgres(t).URL, "REDIS_URL=" + testenv.Redis(t).RedisURL(), "PUBLIC_URL=http://" + customers,
		"LISTEN=" + customers, "LISTEN_OPERATORS=" + operators, "LISTEN_PROBES=" + probes,
		"JWT_SECRET=a fake secret of access tokens, for tests only", "OPENCLAW_TOKEN_PEPPER=a pepper that is fake",
	}
	control := testenv.BuildBinary(t, "./cmd/control")
	for _, args := range [][]string{{"migrate"}, {"add-operator", "--email", operatorEmail, "--role", "admin"}} {
		cmd := exec.CommandContext(t.Context(), control, args...)
		cmd.Env, cmd.Stdin = append(os.Environ(), env...), strings.NewReader(operatorPassword+"\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "api.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(control, "api")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	a := runningAPI{"http://" + customers, "http://" + operators, func() string { b, _ := os.ReadFile(log.Name()); return string(b) }}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get("http://" + probes + "/readyz"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return a
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the api is not ready:\n%s", a.said())
		}
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", url, res.StatusCode, b, err)
	}
	return b
}

func abs(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a program in dir with more environment, and returns what it said.
func run(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
