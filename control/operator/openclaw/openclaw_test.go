package openclaw_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // machines without a database have all time zones as well

	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

var update = flag.Bool("update", false, "write the golden files anew")

// starter, pro and team are boxes as the tiers have them.
func starter() openclaw.Config {
	return openclaw.Config{
		ProxyURL: "http://token-proxy.platform.svc.cluster.local:8080/v1",
		Models: []openclaw.Model{{
			ID: "kimi-k2.5", Name: "Kimi K2.5", Context: 262144, MaxOutput: 16384, Budget: 64000, Images: true, Reasoning: openclaw.ReasoningSwitch,
		}},
		Thinking: "medium", Language: "en", TimeZone: "UTC", TelegramUsers: []int64{4711},
	}
}

func pro() openclaw.Config {
	c := starter()
	c.Language, c.TimeZone = "pt-BR", "America/Sao_Paulo"
	c.SystemPrompt = "You are Ana's assistant. <b>Never</b> say ${OPENCLAW_PROXY_TOKEN} & \"quote\" $${HOME}."
	return c
}

func team() openclaw.Config {
	c := pro()
	c.Thinking = "high"
	c.TelegramUsers = []int64{30, 10, 20}
	c.Models = append([]openclaw.Model{{ID: "kimi-k3", Context: 1048576, MaxOutput: 65536, Reasoning: openclaw.ReasoningEffort}}, c.Models...)
	return c
}

func TestRenderIsAsReviewed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]openclaw.Config{"starter": starter(), "pro": pro(), "team": team()} {
		got, err := c.Render()
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not rendered as testdata has it; read the difference, and run this test with -update if it is meant:\n%s", name, got)
		}
	}
}

func TestRenderIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	c := team()
	first, err := c.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, users := range [][]int64{{10, 20, 30}, {20, 10, 30}, {30, 20, 10}} {
		c := team()
		c.TelegramUsers = users
		again, err := c.Render()
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("the order of users changes the file (%v)", err)
		}
		if users[0] != c.TelegramUsers[0] {
			t.Error("rendering sorted the caller's users")
		}
	}
}

// rendered is what the tests look at.
type rendered struct {
	Agents struct {
		Defaults struct {
			ThinkingDefault, UserTimezone string
			Model                         struct{ Primary string }
		}
	}
	Channels struct {
		Telegram struct {
			AllowFrom []string
			APIRoot   string
			Direct    map[string]struct{ SystemPrompt string }
		}
	}
}

func TestOptionsOfTheTiersAreInTheFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                  string
		config                openclaw.Config
		thinking, zone, model string
		users, speaks, prompt string
	}{
		{"starter", starter(), "medium", "UTC", "token-proxy/kimi-k2.5", "4711", "Write in English,", ""},
		{"pro", pro(), "medium", "America/Sao_Paulo", "token-proxy/kimi-k2.5", "4711", "Write in Brazilian Portuguese,", "You are Ana's assistant. <b>Never</b> say $${OPENCLAW_PROXY_TOKEN}"},
		{"team", team(), "high", "America/Sao_Paulo", "token-proxy/kimi-k3", "10 20 30", "Write in Brazilian Portuguese,", "You are Ana's assistant."},
	} {
		raw, err := c.config.Render()
		if err != nil {
			t.Fatal(err)
		}
		var f rendered
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		d, tg := f.Agents.Defaults, f.Channels.Telegram
		prompt := tg.Direct["*"].SystemPrompt
		if d.ThinkingDefault != c.thinking || d.UserTimezone != c.zone || d.Model.Primary != c.model || strings.Join(tg.AllowFrom, " ") != c.users ||
			!strings.HasPrefix(prompt, c.speaks) || !strings.Contains(prompt, c.prompt) || tg.APIRoot != "" {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

// Golden files can be written anew by mistake; this cannot. Each of these would let whoever
// talks to the agent, or writes a page that it reads, run a program beside the box's secrets.
func TestNobodyCanHaveAProgramStarted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]openclaw.Config{"starter": starter(), "pro": pro(), "team": team()} {
		raw, err := c.Render()
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Cron struct {
				Enabled  *bool
				Triggers struct{ Enabled *bool }
			}
			Commands map[string]any
			Tools    struct {
				Allow    []string
				CodeMode *bool
				Exec     struct{ Mode string }
				Elevated struct{ Enabled *bool }
			}
		}
		if err := json.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		off := func(b *bool) bool { return b != nil && !*b }
		if !off(file.Cron.Enabled) || !off(file.Cron.Triggers.Enabled) || !off(file.Tools.CodeMode) || !off(file.Tools.Elevated.Enabled) || file.Tools.Exec.Mode != "deny" {
			t.Errorf("%s: cron %+v, tools %+v", name, file.Cron, file.Tools)
		}
		if owners, ok := file.Commands["ownerAllowFrom"]; ok {
			t.Errorf("%s: %v are owners", name, owners)
		}
		known := strings.Fields("read write edit apply_patch memory_search memory_get web_fetch session_status message ask_user progress_card get_goal create_goal update_goal view_image")
		for _, tool := range file.Tools.Allow {
			if !slices.Contains(known, tool) {
				t.Errorf("%s: the agent has %s; a tool may start programs, so try it with a real gateway before it is named here", name, tool)
			}
		}
		if len(file.Tools.Allow) == 0 {
			t.Errorf("%s: an empty list allows all tools", name)
		}
	}
}

// The same names are good on every machine.
func TestTimeZonesAreThoseOfTheDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "Asia/Kolkata", "Etc/GMT+3", "Zulu"} {
		if !openclaw.ValidTimeZone(name) {
			t.Errorf("%s is refused", name)
		}
	}
	for _, name := range []string{"", "Local", "localtime", "posixrules", "posix/UTC", "right/UTC", "america/sao_paulo", "America", "America/", "UTC ", "../UTC", "Factory", "UTC\nZulu"} {
		if openclaw.ValidTimeZone(name) {
			t.Errorf("%q is taken for a time zone", name)
		}
	}
	raw, err := os.ReadFile("zones.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(raw))
	if len(names) < 500 || !slices.IsSorted(names) {
		t.Fatalf("%d names, sorted: %t", len(names), slices.IsSorted(names))
	}
	for _, name := range names {
		if _, err := time.LoadLocation(name); err != nil || !openclaw.ValidTimeZone(name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the gateway waits for by itself must fit into the time that it is given.
func TestGatewayHasTimeToEnd(t *testing.T) {
	t.Parallel()
	if openclaw.GracePeriod < 325*time.Second || openclaw.ShortGrace >= openclaw.GracePeriod {
		t.Errorf("a gateway has %v to end, %v when it cannot be waited for", openclaw.GracePeriod, openclaw.ShortGrace)
	}
}

// Each place where OpenClaw would put a variable's value must be one of ours.
func TestFileRefersToItsThreeSecretsOnly(t *testing.T) {
	t.Parallel()
	c := pro()
	c.SystemPrompt = "a ${OPENCLAW_GATEWAY_TOKEN} b $${TELEGRAM_BOT_TOKEN} c $$${X} d ${lower} e ${A${B}} f $"
	raw, err := c.Render()
	if err != nil {
		t.Fatal(err)
	}
	var file any
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	walk(file, func(text string) {
		out := substitute(text, func(name string) string {
			counts[name]++
			return "SECRET"
		})
		if strings.HasPrefix(text, "Write in") && !strings.HasSuffix(out, c.SystemPrompt) {
			t.Errorf("the prompt arrives as %q, want %q", out, c.SystemPrompt)
		}
	})
	if len(counts) != 3 || counts[openclaw.EnvProxyToken] != 1 || counts[openclaw.EnvGatewayToken] != 1 || counts[openclaw.EnvTelegramToken] != 1 {
		t.Errorf("the file refers to %v, want each secret once and nothing else", counts)
	}
}

func walk(v any, text func(string)) {
	switch v := v.(type) {
	case string:
		text(v)
	case []any:
		for _, e := range v {
			walk(e, text)
		}
	case map[string]any:
		for _, e := range v {
			walk(e, text)
		}
	}
}

// substitute is what OpenClaw does to each string: ${NAME} becomes a value, $${NAME} becomes
// ${NAME}.
func substitute(text string, value func(name string) string) string {
	name := func(s string) (string, bool) {
		rest, ok := strings.CutPrefix(s, "{")
		n, _, closed := strings.Cut(rest, "}")
		valid := ok && closed && n != "" && strings.Trim(n, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == "" && !strings.ContainsAny(n[:1], "0123456789")
		return n, valid
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '$' {
			if rest, ok := strings.CutPrefix(text[i+1:], "$"); ok {
				if n, ok := name(rest); ok {
					out.WriteString("${" + n + "}")
					i += len(n) + 3
					continue
				}
			}
			if n, ok := name(text[i+1:]); ok {
				out.WriteString(value(n))
				i += len(n) + 2
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

func TestBadInputIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*openclaw.Config)
		want   string // in the error; empty if it is fine
	}{
		{"as it is", func(*openclaw.Config) {}, ""},
		{"longest prompt", func(c *openclaw.Config) { c.SystemPrompt = strings.Repeat("ã", openclaw.MaxSystemPrompt) }, ""},
		{"other API", func(c *openclaw.Config) { c.TelegramAPI = "http://127.0.0.1:8081" }, ""},
		{"no proxy", func(c *openclaw.Config) { c.ProxyURL = "" }, "proxy URL"},
		{"proxy with a user", func(c *openclaw.Config) { c.ProxyURL = "http://a:b@proxy/v1" }, "without user"},
		{"proxy by another scheme", func(c *openclaw.Config) { c.ProxyURL = "ftp://proxy/v1" }, "proxy URL"},
		{"proxy with a variable", func(c *openclaw.Config) { c.ProxyURL = "http://proxy/${HOME}" }, "proxy URL"},
		{"no Telegram API", func(c *openclaw.Config) { c.TelegramAPI = "api.telegram.org" }, "Telegram API"},
		{"no thinking", func(c *openclaw.Config) { c.Thinking = "" }, "want low, medium or high"},
		{"too much thinking", func(c *openclaw.Config) { c.Thinking = "ultra" }, `thinking "ultra"`},
		{"language", func(c *openclaw.Config) { c.Language = "klingon" }, `language "klingon": want en or pt-BR`},
		{"no language", func(c *openclaw.Config) { c.Language = "" }, "language"},
		{"time zone", func(c *openclaw.Config) { c.TimeZone = "Mars/Olympus" }, "IANA"},
		{"the machine's time zone", func(c *openclaw.Config) { c.TimeZone = "Local" }, "IANA"},
		{"no time zone", func(c *openclaw.Config) { c.TimeZone = "" }, "IANA"},
		{"long prompt", func(c *openclaw.Config) { c.SystemPrompt = strings.Repeat("a", openclaw.MaxSystemPrompt+1) }, "8001 characters, at most 8000"},
		{"broken prompt", func(c *openclaw.Config) { c.SystemPrompt = "\xff" }, "UTF-8"},
		{"prompt with NUL", func(c *openclaw.Config) { c.SystemPrompt = "a\x00b" }, "NUL"},
		{"nobody", func(c *openclaw.Config) { c.TelegramUsers = nil }, "at least one"},
		{"a group", func(c *openclaw.Config) { c.TelegramUsers = []int64{-100123} }, "-100123: ids of people are positive"},
		{"user zero", func(c *openclaw.Config) { c.TelegramUsers = []int64{0} }, "positive"},
		{"user twice", func(c *openclaw.Config) { c.TelegramUsers = []int64{1, 2, 1} }, "named twice"},
		{"too many", func(c *openclaw.Config) { c.TelegramUsers = make([]int64, openclaw.MaxTelegramUsers+1) }, "at most 100"},
		{"no model", func(c *openclaw.Config) { c.Models = nil }, "at least one"},
		{"bad model", func(c *openclaw.Config) { c.Models[0].ID = "${HOME}" }, "an id has letters"},
		{"model twice", func(c *openclaw.Config) { c.Models = append(c.Models, c.Models[0]) }, "named twice"},
		{"small context", func(c *openclaw.Config) { c.Models[0].Context = 4096 }, "at least 32000"},
		{"no output", func(c *openclaw.Config) { c.Models[0].MaxOutput = 0 }, "an output of 0"},
		{"large budget", func(c *openclaw.Config) { c.Models[0].Budget = 1 << 20 }, "a budget of 1048576"},
		{"reasoning", func(c *openclaw.Config) { c.Models[0].Reasoning = "deep" }, `reasoning "deep"`},
		{"port", func(c *openclaw.Config) { c.Port = 70000 }, "port 70000"},
	} {
		config := starter()
		c.change(&config)
		_, err := config.Render()
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
	everything := (&openclaw.Config{}).Validate()
	if everything == nil || strings.Count(everything.Error(), "\n") < 5 {
		t.Errorf("an empty configuration: %v, want all that is wrong with it", everything)
	}
}
