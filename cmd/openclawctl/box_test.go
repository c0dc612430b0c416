package main_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	main "github.com/andreabadesso/openclaw-cloud/cmd/openclawctl"
	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// A box is shown with its steps, and --wait says when the operator of the boxes is done with it, and
// how that came out.
func TestBoxes(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	id := c.Box.ID
	e.pg.Query(`INSERT INTO box_steps (box_id, customer_id, generation, name, started_at, finished_at, error, detail)
		SELECT id, customer_id, 1, 'gateway', '2026-01-02T03:04:05Z', '2026-01-02T03:04:06.25Z', 'it waits', 'for node-7' FROM boxes`)
	e.pg.Query(`UPDATE boxes SET message = 'no room', detail = 'node-7 has a taint'`)
	r := e.run("box", "show", id)
	for _, want := range []string{"pending, since", "0 of 1", "gateway", "2026-01-02T03:04:05Z", "1.25s", "for node-7", "no room", "node-7 has a taint", "of the customer's tier", "waiting for a Telegram bot token: set it with PUT"} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("show: exit code %d, no %q in\n%s%s", r.code, want, r.stdout, r.stderr)
		}
	}
	var list []control.Box
	for state, want := range map[string]int{"pending": 1, "failed": 0} {
		if e.ok(&list, "box", "list", "--state", state); len(list) != want {
			t.Errorf("%s: %+v", state, list)
		}
	}
	if r := e.run("box", "list", "--state", "gone"); r.code != 2 || !strings.Contains(r.stderr, "failed") {
		t.Errorf("%+v", r)
	}
	if r := e.run("box", "logs", id, "--tail", "9"); r.code != 0 || r.stdout != "tail 9?[2J\n" {
		t.Errorf("logs: %+v", r)
	}
	if r := e.run("box", "events", id); r.code != 0 || !strings.Contains(r.stdout, "BackOff") || !strings.Contains(r.stdout, "Pod/p") {
		t.Errorf("events: %+v", r)
	}
	if r := e.run("box", "restart", id); r.code != 2 || !strings.Contains(r.stderr, "--reason") {
		t.Errorf("without a reason: %+v", r)
	}

	// What the operator of the boxes would report, once something is decided.
	reported := func(state string) {
		row := func() string { return strings.TrimSpace(e.pg.Query("SELECT generation FROM boxes")) }
		before := row()
		go func() {
			for row() == before && t.Context().Err() == nil {
				time.Sleep(100 * time.Millisecond)
			}
			e.pg.Query(fmt.Sprintf(`UPDATE boxes SET state = '%s', observed_generation = generation, message = 'as it is'`, state))
		}()
	}
	reported("active")
	if r := e.run("box", "restart", id, "--reason", "test", "--wait"); r.code != 0 || !strings.Contains(r.stderr, "is active after ") || !strings.Contains(r.stdout, " active ") {
		t.Errorf("restart: %+v", r)
	}
	reported("suspended")
	if r := e.run("box", "suspend", id, "--reason", "test", "--wait"); r.code != 0 || !strings.Contains(r.stderr, "is suspended after ") {
		t.Errorf("suspend: %+v", r)
	}
	reported("failed")
	if r := e.run("box", "resume", id, "--reason", "test", "--wait"); r.code != 1 || !strings.Contains(r.stderr, "failed: as it is") {
		t.Errorf("resume that fails: %+v", r)
	}
	reported("pending")
	if r := e.run("box", "restart", id, "--reason", "test", "--wait"); r.code != 1 || !strings.Contains(r.stderr, "pending: as it is") {
		t.Errorf("restart of one that waits for its customer: %+v", r)
	}
	if r := e.run("box", "rotate-token", id, "--reason", "test", "--wait", "--timeout", "1s"); r.code != 1 || !strings.Contains(r.stderr, "5 of 6") {
		t.Errorf("rotate that nobody does: %+v", r)
	}
	var box control.Box
	e.ok(&box, "box", "resize", id, "--size", "team", "--reason", "test")
	if r := e.run("box", "show", id); box.Generation != 7 || !strings.Contains(r.stdout, "team") {
		t.Errorf("resize: %+v\n%s", box, r.stdout)
	}
	if r := e.run("box", "resize", id, "--size", "huge", "--reason", "test"); r.code != 1 || !strings.Contains(r.stderr, "no such tier") {
		t.Errorf("resize: %+v", r)
	}

	// Without --yes it asks.
	if r := e.run("box", "destroy", id, "--reason", "test"); r.code != 2 || !strings.Contains(r.stderr, "nothing was done") {
		t.Errorf("destroy without an answer: %+v", r)
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT wants FROM boxes")); got != "run" {
		t.Errorf("it shall %s", got)
	}
	// The operator reports nothing before it is wanted.
	go func() {
		for strings.TrimSpace(e.pg.Query("SELECT wants FROM boxes")) != "destroy" {
			time.Sleep(100 * time.Millisecond)
		}
		e.pg.Query(`UPDATE boxes SET state = 'destroyed', observed_generation = generation`)
	}()
	cmd := exec.CommandContext(t.Context(), testenv.BuildBinary(t, "./cmd/openclawctl"), "box", "destroy", id, "--reason", "test", "--wait")
	for name, value := range e.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin = strings.NewReader(id + "\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "is destroyed after ") {
		t.Errorf("destroy: %v\n%s", err, out)
	}
}

// No terminal obeys what a box wrote, however it comes.
func TestLogsArePrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\tb\n": "a\tb\n", "\x1b[2J\r\x7f": "?[2J??", "\u009b2J\u0085": "?2J?", "\x9b2J": "?2J", "ação 日本 🦞": "ação 日本 🦞", "é\xf0\x9f": "é?", "\ufffd": "\ufffd",
	} {
		for _, size := range []int{1, 2, 100} {
			var b strings.Builder
			w, end := main.Printable(&b)
			for rest := []byte(text); len(rest) > 0; {
				n := min(size, len(rest))
				if wrote, err := w.Write(rest[:n]); err != nil || wrote != n {
					t.Fatal(wrote, err)
				}
				rest = rest[n:]
			}
			if err := end(); err != nil || b.String() != want {
				t.Errorf("%q by %d bytes: %q, want %q, %v", text, size, b.String(), want, err)
			}
		}
	}
}
