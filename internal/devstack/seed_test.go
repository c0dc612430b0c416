package devstack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Another address is tried if somebody has the first one, and for no other reason. Not parallel: while another
// test starts a process, a program that was just written may count as being written still.
func TestAnotherAddressOnlyIfTheFirstIsTaken(t *testing.T) {
	for _, c := range []struct {
		name, refusal string
		tries         int
	}{
		{"taken", "openclawctl: it exists already", 2},
		{"taken, by the databases", "openclawctl: insert customer: a customer with this email: already exists", 2},
		{"something else", "openclawctl: the api cannot do this just now: something that it needs is away", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := t.TempDir()
			s := openStack(t, Config{BinDir: bin})
			asked := filepath.Join(bin, "asked")
			// It refuses the usual address, and takes any other.
			script := "#!/bin/sh\necho \"$*\" >>" + asked + "\ncase \"$*\" in *'--email " + customerEmail + "'*) echo '" + c.refusal + "' >&2; exit 1 ;; esac\n" +
				`echo '{"customer":{"id":"c1"}}'` + "\n"
			for name, text := range map[string]string{"openclawctl": script, "control": "#!/bin/sh\ncat >/dev/null\n"} {
				if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			id, err := s.newCustomer(t.Context(), s.cleanEnv())
			tries, readErr := os.ReadFile(asked)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if n := strings.Count(string(tries), "\n"); n != c.tries {
				t.Errorf("it tries %d times:\n%s", n, tries)
			}
			if c.tries == 1 {
				if err == nil || !strings.Contains(err.Error(), c.refusal) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil || id != "c1" {
				t.Fatalf("%q, %v", id, err)
			}
			if email, err := s.loginEmail(); err != nil || email == customerEmail || !strings.HasSuffix(email, "@example.com") {
				t.Errorf("it logs in as %q, %v", email, err)
			}
		})
	}
}
