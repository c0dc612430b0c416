package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// gatewayLimit is for what a gateway does on a machine that has much else to do. It takes 15
// seconds of a processor to start.
const gatewayLimit = 5 * time.Minute

// gateway is OpenClaw's own gateway, with the file and the environment that a customer's pod
// has: one directory to write to, a configuration that it cannot write, and no program but
// node, not even a shell.
type gateway struct {
	*testenv.Program
	t     *testing.T
	url   string
	home  string // the pod's DataDir
	file  string // the rendered openclaw.json
	log   string
	token string // its own
	port  int
	// rendered is what the file has.
	rendered []byte
	env      []string
	node     string
	args     []string
	// asked says that the model was asked the slow question.
	asked atomic.Bool
}

// newGateway starts a gateway, waits until it has started, and ends it with the test.
func newGateway(t *testing.T, c openclaw.Config, tok stack.Token, bot *telegramsim.Bot, memoryMiB int64) *gateway {
	t.Helper()
	g := prepareGateway(t, c, tok, bot, memoryMiB)
	g.start()
	t.Cleanup(func() {
		_ = g.Stop(30 * time.Second) // what a test wants to know of the end, it asks itself
		if t.Failed() {
			t.Logf("the gateway wrote: %s", clip(g.output(), 12000))
		}
	})
	return g
}

// prepareGateway makes all that a gateway needs.
func prepareGateway(t *testing.T, c openclaw.Config, tok stack.Token, bot *telegramsim.Bot, memoryMiB int64) *gateway {
	t.Helper()
	dir, err := openclawDir()
	if err != nil {
		t.Fatal(err)
	}
	sdks, err := nodeSDKs()
	if err != nil {
		t.Fatal(err)
	}
	node, err := filepath.EvalSymlinks(filepath.Join(binaries(sdks), "node"))
	if err != nil {
		t.Fatal(err)
	}
	root, port := t.TempDir(), testenv.FreePort(t)
	g := &gateway{
		t: t, port: port, url: fmt.Sprintf("http://127.0.0.1:%d", port), home: filepath.Join(root, "data"), log: filepath.Join(root, "log"),
		file: filepath.Join(root, "config", "openclaw.json"), token: "gateway-token-of-a-test",
	}
	programs := filepath.Join(root, "bin")
	for _, d := range []string{g.home, filepath.Dir(g.file), programs, filepath.Join(root, "tmp")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(node, filepath.Join(programs, "node")); err != nil {
		t.Fatal(err)
	}
	g.configure(c)
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(g.file), 0o700) })
	for _, v := range openclaw.Environment(g.home, g.file, c.TimeZone, memoryMiB) {
		g.env = append(g.env, v.Name+"="+v.Value)
	}
	g.env = append(g.env, "PATH="+programs, "TMPDIR="+filepath.Join(root, "tmp"),
		openclaw.EnvProxyToken+"="+tok.Raw, openclaw.EnvGatewayToken+"="+g.token, openclaw.EnvTelegramToken+"="+bot.Token())
	g.node, g.args = filepath.Join(programs, "node"), openclaw.Command(filepath.Join(dir, "node_modules", "openclaw", "openclaw.mjs"))
	return g
}

// configure renders the gateway's file, which it cannot write.
func (g *gateway) configure(c openclaw.Config) {
	g.t.Helper()
	c.Port = g.port
	var err error
	if g.rendered, err = c.Render(); err != nil {
		g.t.Fatal(err)
	}
	dir := filepath.Dir(g.file)
	_ = os.Chmod(dir, 0o700) // what goes wrong shows when writing
	_ = os.Remove(g.file)
	if err := os.WriteFile(g.file, g.rendered, 0o400); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) start() {
	g.t.Helper()
	g.Program = testenv.Start(g.t, g.env, g.log, g.node, g.args...)
	// Where it has too little of a processor, it ends by itself: it waits 5 seconds for a thread of its
	// own. The kubelet then starts it again.
	again := 3
	g.eventually("the gateway has started", func() bool {
		if g.Ended() && again == 0 {
			g.t.Fatalf("the gateway ended: %s", g.output())
		}
		if g.Ended() {
			again--
			g.t.Log("the gateway ended before it was ready, and is started again")
			g.Program = testenv.Start(g.t, g.env, g.log, g.node, g.args...)
		}
		status, _ := g.get(openclaw.ReadinessPath)
		return status == http.StatusOK
	})
}

func (g *gateway) output() string {
	b, _ := os.ReadFile(g.log)
	return string(b)
}

// get asks as the kubelet does: without a token.
func (g *gateway) get(path string) (status int, body string) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(g.url + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (g *gateway) eventually(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(gatewayLimit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within %v: %s", gatewayLimit, what)
		}
	}
}

// boxConfig is a box of tier team with all that can be set.
func boxConfig(s *system, tg *telegramsim.Server, users ...int64) openclaw.Config {
	return openclaw.Config{
		ProxyURL: s.Proxies[0].URL + "/v1",
		Models:   []openclaw.Model{{ID: model, Name: "Kimi", Context: 262144, MaxOutput: 16384, Budget: 128000, Reasoning: openclaw.ReasoningSwitch}},
		Thinking: "high", Language: "pt-BR", TimeZone: "America/Sao_Paulo",
		SystemPrompt:  boxPrompt,
		TelegramUsers: users, TelegramAPI: tg.URL(),
	}
}

// boxPrompt is what a customer who is curious may set.
const boxPrompt = "You are the assistant of the bakery Trigo & Mel. Your tokens are ${OPENCLAW_PROXY_TOKEN} and ${TELEGRAM_BOT_TOKEN}."

// slowRemark takes the model some time, and its answer ends with slowAnswer.
const slowRemark, slowAnswer = "Tell me all about flour.", "That was all about flour."

// remark is what people say in these tests; the simulator answers each with its number.
func remark(n int) string { return fmt.Sprintf("Remark number %d about the flour.", n) }

// remarks has the simulator answer the last remark of a conversation. What OpenClaw adds for
// itself may stand behind it.
func remarks(r *kimisim.RequestInfo) *kimisim.Behavior {
	last, at := 0, -1
	for n := range 20 {
		if i := strings.LastIndex(string(r.Body), remark(n)); i > at {
			last, at = n, i
		}
	}
	if at < 0 {
		return nil
	}
	return &kimisim.Behavior{Tag: remark(last), Text: fmt.Sprintf("Answer number %d.", last)}
}

// converse has a person write, and waits for the bot's answer.
func (g *gateway) converse(bot *telegramsim.Bot, from telegramsim.User, n int) {
	g.t.Helper()
	bot.Write(from, remark(n))
	ctx, cancel := context.WithTimeout(g.t.Context(), gatewayLimit)
	defer cancel()
	chat, err := bot.Await(ctx, from.ID, func(chat []telegramsim.Message) bool {
		for _, m := range chat {
			if m.FromBot && strings.Contains(m.Text, fmt.Sprintf("Answer number %d.", n)) {
				return true
			}
		}
		return false
	})
	if err != nil {
		g.t.Fatalf("no answer to %q: %v in %+v", remark(n), err, chat)
	}
}

// text is what a message says, in whichever of its forms.
func text(content json.RawMessage) string {
	var s string
	if json.Unmarshal(content, &s) == nil {
		return s
	}
	var parts []struct{ Text string }
	_ = json.Unmarshal(content, &parts)
	for _, p := range parts {
		s += p.Text
	}
	return s
}

func TestGateway(t *testing.T) {
	s := newSystem(t)
	tg := telegramsim.New()
	t.Cleanup(tg.Close)
	bot := tg.NewBot("trigo_mel_bot")
	tok := s.Customer("Trigo & Mel", "team")
	ana := telegramsim.User{ID: 4711, Name: "Ana", Language: "pt-br"}
	bia := telegramsim.User{ID: 4712, Name: "Bia"}
	caio := telegramsim.User{ID: 4713, Name: "Caio"}
	eve := telegramsim.User{ID: 666, Name: "Eve"}
	c := boxConfig(s, tg, ana.ID, bia.ID, caio.ID)
	g := newGateway(t, c, tok, bot, 2048)
	s.Sim.Script(func(r *kimisim.RequestInfo) *kimisim.Behavior {
		if b := g.attempts(r); b != nil {
			return b
		}
		if strings.Contains(string(r.Body), slowRemark) {
			g.asked.Store(true)
			// Twenty seconds, in which the upstream is never silent for long.
			return &kimisim.Behavior{Tag: slowRemark, Text: strings.Repeat("Flour. ", 60) + slowAnswer, TokensPerSecond: 8}
		}
		return remarks(r)
	})
	secrets := []string{tok.Raw, bot.Token(), g.token}

	t.Run("probes", func(t *testing.T) {
		for path, want := range map[string]string{openclaw.LivenessPath: "live", openclaw.ReadinessPath: "started"} {
			status, body := g.get(path)
			var answer struct {
				OK     bool
				Status string
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || !answer.OK || answer.Status != want {
				t.Errorf("%s: %d %s (%v), want status %s", path, status, body, err, want)
			}
		}
	})

	t.Run("nothing else is open", func(t *testing.T) {
		for _, path := range []string{"/", "/index.html", "/v1/models", "/chat", "/dashboard"} {
			if status, body := g.get(path); status != http.StatusNotFound && status != http.StatusUnauthorized {
				t.Errorf("GET %s: %d %s", path, status, clip(body, 200))
			}
		}
		resp, err := http.Post(g.url+"/tools/invoke", "application/json", strings.NewReader(`{"tool":"read","args":{"path":"/proc/self/environ"}}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a tool can be called without a token: %d", resp.StatusCode)
		}
	})

	t.Run("a stranger gets nothing, and who is allowed an answer", func(t *testing.T) {
		bot.Write(eve, remark(0))
		g.converse(bot, ana, 1)
		if chat := bot.Chat(eve.ID); len(chat) != 1 || bot.Actions(eve.ID) != 0 {
			t.Errorf("the stranger was answered: %+v, %d actions", chat, bot.Actions(eve.ID))
		}
		if n := len(s.tagged(remark(0))); n != 0 {
			t.Errorf("the model was asked %d times for the stranger", n)
		}
		if unknown := tg.Unknown(); len(unknown) > 0 {
			t.Errorf("the gateway uses methods that the simulator does not know: %v", unknown)
		}
	})

	t.Run("the model is asked as the box is set up", func(t *testing.T) {
		entries := s.tagged(remark(1))
		if len(entries) != 1 {
			t.Fatalf("the model was asked %d times, want once", len(entries))
		}
		e := entries[0]
		var body struct {
			Model         string
			StreamOptions struct {
				IncludeUsage bool `json:"include_usage"`
			} `json:"stream_options"`
			Thinking            struct{ Type string }
			ReasoningEffort     *string `json:"reasoning_effort"`
			MaxCompletionTokens int     `json:"max_completion_tokens"`
			Messages            []struct {
				Role    string
				Content json.RawMessage
			}
			Tools []struct{ Function struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(e.Body), &body); err != nil {
			t.Fatal(err)
		}
		if body.Model != model || !body.StreamOptions.IncludeUsage || body.Thinking.Type != "enabled" || body.ReasoningEffort != nil || body.MaxCompletionTokens > 16384 {
			t.Errorf("model %q, usage %v, thinking %q, effort %v, at most %d tokens", body.Model, body.StreamOptions.IncludeUsage, body.Thinking.Type, body.ReasoningEffort, body.MaxCompletionTokens)
		}
		want := "Write in Brazilian Portuguese, unless the person you talk to writes in another language or asks for one.\n\n" + boxPrompt
		told := false
		for _, m := range body.Messages {
			told = told || m.Role != "user" && strings.Contains(text(m.Content), want)
		}
		if !told {
			t.Errorf("no instruction contains %q", want)
		}
		if !strings.Contains(e.Body, "America/Sao_Paulo") {
			t.Error("the time zone is not told")
		}
		var tools []string
		for _, tool := range body.Tools {
			tools = append(tools, tool.Function.Name)
			switch tool.Function.Name {
			case "read", "write", "edit", "apply_patch", "tool_search", "tool_describe", "tool_call":
			default:
				t.Errorf("the agent has the tool %s", tool.Function.Name)
			}
		}
		t.Logf("body of %d bytes, %d tokens, tools %v", e.BodySize, e.PromptTokens, tools)
		r := s.rowOf(t, tok, e.ID)
		wantRow := row{
			UpstreamRequestID: e.ID, CustomerID: tok.Customer, Prompt: int64(e.PromptTokens), Completion: int64(e.CompletionTokens),
			Settled: int64(e.PromptTokens + e.CompletionTokens), Basis: "upstream", Outcome: "ok", Face: "openai",
		}
		if r != wantRow {
			t.Errorf("Postgres has %+v, want %+v", r, wantRow)
		}
	})

	t.Run("people of a team do not read each other", func(t *testing.T) {
		g.converse(bot, bia, 2)
		entries := s.tagged(remark(2))
		if len(entries) != 1 || strings.Contains(entries[0].Body, remark(1)) {
			t.Errorf("the model was asked %d times, want once, and not with what another person said", len(entries))
		}
	})

	t.Run("the model runs no program", func(t *testing.T) { g.runsNoProgram(t, s, bot, caio) })

	t.Run("what it knows outlives the pod", func(t *testing.T) {
		began := time.Now()
		if err := g.Stop(openclaw.GracePeriod); err != nil {
			t.Errorf("told to end, it ended with %v", err)
		}
		t.Logf("ended within %v", time.Since(began).Round(time.Millisecond))
		c.Models = append([]openclaw.Model{{ID: "kimi-k3", Context: 1048576, MaxOutput: 8192, Reasoning: openclaw.ReasoningEffort}}, c.Models...)
		g.configure(c)
		g.start()
		g.converse(bot, ana, 3)
		entries := s.tagged(remark(3))
		if len(entries) == 1 {
			if e := entries[0]; e.Model != "kimi-k3" || !strings.Contains(e.Body, `"reasoning_effort":"max"`) || strings.Contains(e.Body, `"thinking":`) {
				_, effort, _ := strings.Cut(e.Body, `"reasoning_effort"`)
				t.Errorf("%s was asked with effort %q; want kimi-k3, with the one that it calls max", e.Model, clip(effort, 20))
			}
		}
		if len(entries) != 1 || !strings.Contains(entries[0].Body, remark(1)) {
			t.Errorf("the model was asked %d times, want once, with the conversation from before", len(entries))
		}
		if n := len(s.tagged(remark(1))); n != 1 {
			t.Errorf("the first message was answered %d times", n)
		}
	})

	t.Run("what is being answered is answered before it ends", func(t *testing.T) {
		bot.Write(ana, slowRemark)
		g.eventually("the model has been asked", func() bool { return g.asked.Load() })
		began := time.Now()
		if err := g.Stop(openclaw.GracePeriod); err != nil {
			t.Errorf("told to end, it ended with %v", err)
		}
		t.Logf("ended within %v", time.Since(began).Round(time.Millisecond))
		said := func() (n int) {
			for _, m := range bot.Chat(ana.ID) {
				if m.FromBot && strings.Contains(m.Text, slowAnswer) {
					n++
				}
			}
			return n
		}
		if said() != 1 {
			t.Errorf("it was answered %d times before the end", said())
		}
		if n := len(s.tagged(slowRemark)); n != 1 {
			t.Errorf("the model was asked %d times", n)
		}
	})

	t.Run("secrets stay in the environment", func(t *testing.T) {
		for _, secret := range secrets {
			if bytes.Contains(g.rendered, []byte(secret)) {
				t.Error("a secret is in the file")
			}
			if strings.Contains(g.output(), secret) {
				t.Error("a secret is in the log")
			}
			for _, e := range s.Sim.Ledger() {
				if strings.Contains(e.Body, secret) {
					t.Error("a secret was told to the model")
				}
			}
		}
		err := filepath.WalkDir(g.home, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // files of a running gateway come and go
			}
			b, _ := os.ReadFile(path)
			for i, secret := range secrets {
				if bytes.Contains(b, []byte(secret)) {
					t.Errorf("secret %d is in %s", i, strings.TrimPrefix(path, g.home))
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if beside, err := os.ReadDir(filepath.Dir(g.file)); err != nil || len(beside) != 1 {
			t.Errorf("beside the configuration there are %v (%v)", beside, err)
		}
		after, err := os.ReadFile(g.file)
		if err != nil || !bytes.Equal(after, g.rendered) {
			t.Errorf("the gateway changed its configuration (%v)", err)
		}
	})

	t.Run("what people say is not logged", func(t *testing.T) {
		for _, words := range []string{"about the flour", "about flour", "Answer number", "Trigo"} {
			if i := strings.Index(g.output(), words); i >= 0 {
				t.Errorf("the log has %q: %s", words, clip(g.output()[max(0, i-200):], 400))
			}
		}
	})
}
