package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

// try is a call of a tool that somebody has talked the model into.
type try struct {
	what string
	tool string // as the model names it; empty is by way of tool_call
	args string // JSON; OUT is a program that leaves a file, JOB the last automation's id
}

// tries are all ways to a process that this release of OpenClaw has for an agent.
func tries() []try {
	const when, say = `"schedule":{"kind":"every","everyMs":1000}`, `"payload":{"kind":"agentTurn","message":"x"}`
	add := func(job string) string {
		return `{"action":"add","job":{"name":"x","sessionTarget":"isolated",` + job + `}}`
	}
	return []try{
		{"a stream", "", add(`"schedule":{"kind":"stream","command":OUT},` + say)},
		{"a script", "", add(when + `,"payload":{"kind":"script","script":"await exec({command:'node'})"}`)},
		{"a condition", "", add(`"schedule":{"kind":"every","everyMs":30000},"trigger":{"script":"await exec({command:'node'})"},` + say)},
		{"a command", "", add(when + `,"payload":{"kind":"command","argv":OUT}`)},
		{"a program's end", "", add(`"schedule":{"kind":"on-exit","command":OUT},` + say)},
		{"a reminder", "", add(`"schedule":{"kind":"at","at":"2030-01-01T00:00:00Z"},` + say)},
		{"a reminder that becomes a command", "", `{"action":"update","jobId":"JOB","job":{"payload":{"kind":"command","argv":OUT}}}`},
		{"that reminder, now", "", `{"action":"run","jobId":"JOB","runMode":"force"}`},
		{"automations by name", "automations", add(`"schedule":{"kind":"stream","command":OUT},` + say)},
		{"cron by name", "cron", add(`"schedule":{"kind":"stream","command":OUT},` + say)},
		{"what there is to call", "tool_search", `{"query":"automations: reminder, schedule, cron, exec, process, script, command"}`},
		{"exec", "exec", `{"command":"node -e 1"}`},
		{"process", "process", `{"action":"list"}`},
	}
}

func (g *gateway) out(n int) string { return filepath.Join(g.home, fmt.Sprintf("out-%d", n)) }

func attempt(n int) string { return fmt.Sprintf("Attempt number %d is due.", n) }

var jobID = regexp.MustCompile(`[^a-z]id[\\"]+: ?[\\"]+([0-9a-f-]{36})`)

// attempts has the simulator call the tool of the last attempt in a conversation, and then say
// that it is done.
func (g *gateway) attempts(r *kimisim.RequestInfo) *kimisim.Behavior {
	body := string(r.Body)
	for n, a := range tries() {
		if !strings.Contains(body, attempt(n)) || strings.Contains(body, attempt(n+1)) {
			continue
		}
		program, _ := json.Marshal([]string{"node", "-e", fmt.Sprintf("require('fs').writeFileSync(%q, Object.keys(process.env).join())", g.out(n))})
		job := "00000000-0000-4000-8000-000000000000"
		if found := jobID.FindAllStringSubmatch(body, -1); found != nil {
			job = found[len(found)-1][1]
		}
		b := &kimisim.Behavior{Tag: attempt(n), Text: fmt.Sprintf("Attempt %d is over.", n)}
		if strings.Contains(body[strings.LastIndex(body, attempt(n)):], `"role":"tool"`) {
			return b
		}
		b.ToolCalls, b.ToolName = 1, a.tool
		b.ToolArguments = strings.NewReplacer("OUT", string(program), "JOB", job).Replace(a.args)
		if a.tool == "" {
			b.ToolName, b.ToolArguments = "tool_call", `{"id":"automations","args":`+b.ToolArguments+`}`
		}
		return b
	}
	return nil
}

// runsNoProgram makes every try, and looks for what it would have run.
func (g *gateway) runsNoProgram(t *testing.T, s *system, bot *telegramsim.Bot, who telegramsim.User) {
	before := g.processes(t)
	for n, a := range tries() {
		bot.Write(who, attempt(n))
		ctx, cancel := context.WithTimeout(t.Context(), gatewayLimit)
		chat, err := bot.Await(ctx, who.ID, func(chat []telegramsim.Message) bool {
			last := chat[len(chat)-1]
			return last.FromBot && strings.Contains(last.Text, fmt.Sprintf("Attempt %d is over.", n))
		})
		cancel()
		if err != nil {
			t.Fatalf("%s: %v in %+v", a.what, err, chat)
		}
		entries := s.tagged(attempt(n))
		if len(entries) < 2 {
			t.Fatalf("%s: the model was asked %d times, want twice: for the call and for what came of it", a.what, len(entries))
		}
		result := lastToolResult(t, entries[len(entries)-1].Body)
		t.Logf("%s: %s", a.what, clip(result, 600))
		refused := refusal.MatchString(result)
		if a.tool == "tool_search" {
			refused = !able.MatchString(result)
		}
		if !refused {
			t.Errorf("%s: the tool answered %s", a.what, clip(result, 500))
		}
	}
	time.Sleep(3 * time.Second) // what was scheduled for each second runs meanwhile
	for n, a := range tries() {
		if names, err := os.ReadFile(g.out(n)); err == nil {
			t.Errorf("%s: a program ran, with %s", a.what, names)
		}
	}
	for pid, line := range g.processes(t) {
		if strings.Contains(line, "writeFileSync") || before[pid] == "" && !ownWorker.MatchString(line) {
			t.Errorf("process %s has come: %s", pid, clip(line, 200))
		}
	}
}

// refusal is how OpenClaw says that an agent has no such tool, and able names those that start
// something.
var (
	refusal = regexp.MustCompile(`(?i)unknown tool|tool \S+ not found`)
	able    = regexp.MustCompile(`"(automations|cron|exec|process|code_execution|sessions_spawn|gateway)"`)
)

// ownWorker is a process that the gateway starts for itself at times of its own, as to look at its databases.
var ownWorker = regexp.MustCompile(`^\S+/node \S+/openclaw/dist/infra/sqlite-[a-z-]+\.worker\.js `)

// lastToolResult is what the model was told last of what a tool did.
func lastToolResult(t *testing.T, body string) string {
	t.Helper()
	var request struct {
		Messages []struct {
			Role    string
			Content json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(body), &request); err != nil {
		t.Fatal(err)
	}
	result := ""
	for _, m := range request.Messages {
		if m.Role == "tool" {
			result = text(m.Content)
		}
	}
	return result
}

// processes are the command lines of all processes that have the gateway's HOME, by their ids.
func (g *gateway) processes(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, e := range entries {
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !strings.Contains("\x00"+string(env), "\x00HOME="+g.home+"\x00") {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		found[e.Name()] = strings.ReplaceAll(string(line), "\x00", " ") + "."
	}
	return found
}
