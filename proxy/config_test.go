package proxy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

const fakeSecret = "sk-fake-never-to-be-shown"

// minimal is the smallest configuration that is valid.
const minimal = `{
  "redis_url": "redis://127.0.0.1:6379/0",
  "token_pepper_file": "pepper",
  "upstreams": [{"name": "kimi", "base_url": "https://api.example.com/v1", "face": "openai",
    "keys": [{"secret": "` + fakeSecret + `"}], "models": {"kimi-k2.5": "kimi-k2.5"}}]
}`

func verbatim(s string) (string, error) { return s, nil }

func loadConfig(t *testing.T, text string, resolve func(string) (string, error)) (proxy.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token-proxy.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return proxy.LoadConfig(path, resolve)
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got, err := loadConfig(t, minimal, verbatim)
	if err != nil {
		t.Fatal(err)
	}
	if got.Listen != ":8080" || got.Admin != "127.0.0.1:9090" || got.LogLevel != "info" || got.AllowUnsafe {
		t.Errorf("listen %q, admin %q, log level %q, allow unsafe %v", got.Listen, got.Admin, got.LogLevel, got.AllowUnsafe)
	}
	want := "goroutine"
	if runtime.GOOS == "linux" {
		want = "eventloop"
	}
	if got.StreamDriver != want {
		t.Errorf("stream driver %q, want %q", got.StreamDriver, want)
	}
	limits := proxy.Limits{
		Connections: 20_000, PerAddress: 1000, HeaderBytes: 16 << 10, BodyBytes: 8 << 20, InFlightBytes: 1 << 30,
		AnswerBytes: 32 << 20, EventBytes: 1 << 20, DefaultOutputCap: 32_768, MinOutput: 256,
		ImageTokens: 8192, VideoTokens: 131_072, AuthFailures: 60, CachedTokens: 100_000, SchedulingDelay: proxy.Duration(50 * time.Millisecond), JournalSlots: 16_384, JournalBytes: 64 << 20,
	}
	if got.Limits != limits {
		t.Errorf("limits %+v\nwant   %+v", got.Limits, limits)
	}
	d := func(s string) proxy.Duration {
		v, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return proxy.Duration(v)
	}
	timeouts := proxy.Timeouts{
		ReadRequest: d("30s"), Idle: d("75s"), Write: d("30s"), WaitForHold: d("2s"), Redis: d("600ms"),
		Grace: d("10s"), PreStop: d("5s"), Drain: d("10m"), Flush: d("30s"),
	}
	if got.Timeouts != timeouts {
		t.Errorf("timeouts %+v\nwant     %+v", got.Timeouts, timeouts)
	}
	u := got.Upstreams[0]
	if u.KeyHeader != upstream.KeyBearer || u.IdleTimeout.Std() != 2*time.Minute || u.Keys[0].Weight != 1 {
		t.Errorf("the defaults of upstreams are not filled in: %+v", u)
	}

	// Defaults fill in what is missing and change nothing that is there.
	before := got
	got.SetDefaults()
	if !reflect.DeepEqual(got, before) {
		t.Error("a second SetDefaults changed something")
	}
	own, err := loadConfig(t, strings.Replace(minimal, "{", `{"listen": "127.0.0.1:1", "limits": {"min_output": 1}, "timeouts": {"drain": "1m30s"},`, 1), verbatim)
	if err != nil {
		t.Fatal(err)
	}
	if own.Listen != "127.0.0.1:1" || own.Limits.MinOutput != 1 || own.Timeouts.Drain != d("1m30s") || own.Limits.BodyBytes != 8<<20 {
		t.Errorf("own values are lost: %+v", own)
	}
}

// valid is a configuration in code, to be spoilt.
func valid() proxy.Config {
	c := proxy.Config{
		RedisURL: "redis://127.0.0.1:6379/0", TokenPepperFile: "pepper",
		Upstreams: []upstream.Config{{
			Name: "kimi", BaseURL: "https://api.example.com/v1", Face: "openai",
			Keys: []upstream.Key{{Secret: fakeSecret}}, Models: map[string]string{"kimi-k2.5": "kimi-k2.5"},
		}},
	}
	c.SetDefaults()
	return c
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	type row struct {
		spoil func(*proxy.Config)
		want  string
	}
	rows := []row{
		{func(c *proxy.Config) { c.RedisURL = "" }, "redis_url is missing"},
		{func(c *proxy.Config) { c.RedisURL = "http://:" + fakeSecret + "@h" }, "redis_url: the URL of a Redis must be like redis://"},
		{func(c *proxy.Config) { c.RedisURL = "redis-sentinel://:" + fakeSecret + "@h" }, "redis_url: the URL of Sentinels must name the master"},
		{func(c *proxy.Config) { c.TokenPepperFile = "" }, "token_pepper_file is missing"},
		{func(c *proxy.Config) { c.Upstreams = nil }, "upstreams is empty"},
		{func(c *proxy.Config) { c.Upstreams[0].Face = "telnet" }, `upstreams[0]: upstream "kimi": face "telnet"`},
		{func(c *proxy.Config) { c.Upstreams = append(c.Upstreams, c.Upstreams[0]) }, `upstreams[1]: the name "kimi" is used twice`},
		{func(c *proxy.Config) { c.Hosts = []string{"good.test", "10.0.0.7", "::1", "good.test:8080"} }, `hosts: "good.test:8080" is not a host name`},
		{func(c *proxy.Config) { c.Hosts = []string{"https://good.test"} }, `hosts: "https://good.test" is not a host name`},
		{func(c *proxy.Config) { c.Hosts = []string{"[::1]"} }, `hosts: "[::1]" is not a host name`},
		{func(c *proxy.Config) { c.Hosts = []string{""} }, `hosts: "" is not a host name`},
		{func(c *proxy.Config) { c.TrustedProxies = []string{"10.0.0.0/8", "10.1.2.3"} }, `trusted_proxies: "10.1.2.3" is not a network`},
		{func(c *proxy.Config) { c.Limits.HeaderBytes = 1000 }, "limits.header_bytes is 1000: real clients need at least 4096"},
		{func(c *proxy.Config) { c.LogLevel = "loud" }, `log_level is "loud"`},
		{func(c *proxy.Config) { c.LogLevel = "" }, `log_level is ""`},
		{func(c *proxy.Config) { c.StreamDriver = "threads" }, `stream_driver is "threads": use eventloop or goroutine`},
	}
	// Each limit must be positive and each timeout not negative, under its own name.
	limits := reflect.TypeFor[proxy.Limits]()
	for i := range limits.NumField() {
		name := limits.Field(i).Tag.Get("json")
		if name == "scheduling_delay" { // negative is off
			rows = append(rows, row{func(c *proxy.Config) { c.Limits.SchedulingDelay = proxy.Duration(time.Microsecond) }, "limits.scheduling_delay is 1µs: what has arrived waits"})
			continue
		}
		for _, v := range []int64{0, -1} {
			rows = append(rows, row{func(c *proxy.Config) { reflect.ValueOf(&c.Limits).Elem().Field(i).SetInt(v) },
				fmt.Sprintf("limits.%s is %d: it must be positive", name, v)})
		}
	}
	timeouts := reflect.TypeFor[proxy.Timeouts]()
	for i := range timeouts.NumField() {
		rows = append(rows, row{func(c *proxy.Config) { reflect.ValueOf(&c.Timeouts).Elem().Field(i).SetInt(-1) },
			fmt.Sprintf("timeouts.%s is negative", timeouts.Field(i).Tag.Get("json"))})
	}
	c := valid()
	if err := c.Validate(); err != nil {
		t.Fatalf("the configuration to spoil: %v", err)
	}
	everything := valid()
	for _, r := range rows {
		c := valid()
		r.spoil(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("want %q, got %v", r.want, err)
			continue
		}
		if strings.Contains(err.Error(), fakeSecret) {
			t.Errorf("a secret is in %q", err)
		}
		if strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("one fault, several complaints: %v", err)
		}
	}

	// All faults are reported at once.
	everything.RedisURL, everything.TokenPepperFile, everything.LogLevel = "", "", "loud"
	everything.Limits.BodyBytes, everything.Timeouts.Drain = -1, -1
	err := everything.Validate()
	for _, want := range []string{"redis_url", "token_pepper_file", "log_level", "limits.body_bytes", "timeouts.drain"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
}

func TestConfigFileFaults(t *testing.T) {
	t.Parallel()
	put := func(text string) string { return strings.Replace(minimal, "{", "{"+text+",", 1) }
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":            {put(`"lisen": ":1"`), `line 1: unknown field "lisen": did you mean "listen"?`},
		"unknown limit":            {put(`"limits": {"bodybytes": 1}`), `unknown field "bodybytes": did you mean "body_bytes"?`},
		"unknown timeout":          {put(`"timeouts": {"read": "1s"}`), `unknown field "read"`},
		"unknown upstream field":   {strings.Replace(minimal, `"face"`, `"weigth": 1, "face"`, 1), `unknown field "weigth": did you mean "weight"?`},
		"not JSON":                 {"listen: :8080", "invalid character"},
		"empty":                    {"", "it is empty"},
		"cut":                      {minimal[:len(minimal)-3], "unexpected EOF"},
		"something behind it":      {minimal + `{"listen": ":1"}`, "more than one JSON value"},
		"garbage behind it":        {minimal + "x", "more than one JSON value"},
		"duration as a number":     {put(`"timeouts": {"drain": 10}`), "timeouts.drain is a JSON number: want a duration such as \"10s\""},
		"duration without a unit":  {put(`"timeouts": {"drain": "10"}`), `drain: duration "10": write it like 10s`},
		"size with a unit":         {put(`"limits": {"body_bytes": "8MB"}`), "limits.body_bytes is a JSON string: want a whole number"},
		"models as a list":         {strings.Replace(minimal, `{"kimi-k2.5": "kimi-k2.5"}`, `["kimi-k2.5"]`, 1), `upstreams.models is a JSON array: want an object`},
		"comma behind the last":    {put("\n\n\"listen\": \":1\",\n,"), "line 4: invalid character"},
		"port alone":               {put(`"listen": "8080"`), `listen is "8080": write it with a port, like :8080`},
		"one port for two":         {put(`"listen": ":9090"`), `give them different ports`},
		"whole path":               {strings.Replace(minimal, "/v1\"", "/v1/chat/completions\"", 1), "base_url: leave out /chat/completions"},
		"one address":              {put(`"trusted_proxies": ["10.0.0.7"]`), `"10.0.0.7" is not a network such as 10.42.0.0/16; one address is written as`},
		"hardly a grace":           {put(`"timeouts": {"grace": "100ms"}`), "timeouts.grace is 100ms: below 1s"},
		"invalid":                  {put(`"limits": {"body_bytes": -5}`), "limits.body_bytes is -5"},
		"upstream without a model": {strings.Replace(minimal, `{"kimi-k2.5": "kimi-k2.5"}`, `{}`, 1), "models: list at least one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(t, c.text, verbatim)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
			if err != nil && strings.Contains(err.Error(), fakeSecret) {
				t.Errorf("a secret is in %q", err)
			}
			if err != nil && !strings.Contains(err.Error(), "token-proxy.json") {
				t.Errorf("%q does not name the file", err)
			}
		})
	}
	if _, err := proxy.LoadConfig(filepath.Join(t.TempDir(), "none.json"), verbatim); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestConfigResolvesSecrets(t *testing.T) {
	t.Parallel()
	resolve := func(s string) (string, error) {
		switch s {
		case "env:KEY":
			return fakeSecret, nil
		case "env:EGRESS":
			return "http://user:" + fakeSecret + "@proxy.example.com:3128", nil
		case "env:REDIS":
			return "redis-cluster://user:" + fakeSecret + "@h1,h2", nil
		case "":
			return "", nil
		}
		if strings.HasPrefix(s, "redis://") {
			return s, nil
		}
		return "", errors.New("environment variable is not set")
	}
	text := strings.Replace(minimal, fakeSecret, "env:KEY", 1)
	withEgress := func(v string) string {
		return strings.Replace(text, `"face"`, `"egress_proxy": "`+v+`", "face"`, 1)
	}
	c, err := loadConfig(t, withEgress("env:EGRESS"), resolve)
	if err != nil {
		t.Fatal(err)
	}
	u := c.Upstreams[0]
	if u.Keys[0].Secret.Reveal() != fakeSecret || !strings.Contains(u.EgressProxy.Reveal(), fakeSecret) {
		t.Error("secrets are not resolved")
	}
	withRedis := func(v string) string { return strings.Replace(text, "redis://127.0.0.1:6379/0", v, 1) }
	if c, err := loadConfig(t, withRedis("env:REDIS"), resolve); err != nil || !strings.Contains(c.RedisURL.Reveal(), fakeSecret) {
		t.Errorf("redis_url is not resolved: %v", err)
	}
	for field, text := range map[string]string{
		`upstream "kimi", key 1`:        strings.Replace(minimal, fakeSecret, "env:NONE", 1),
		`upstream "kimi": egress_proxy`: withEgress("env:NONE"),
		"redis_url":                     withRedis("env:NONE"),
	} {
		if _, err := loadConfig(t, text, resolve); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("want an error that names %s, got %v", field, err)
		}
	}
}

func TestConfigNeverPrintsSecrets(t *testing.T) {
	t.Parallel()
	c := valid()
	c.Upstreams[0].EgressProxy = upstream.Secret("http://user:" + fakeSecret + "@proxy.example.com:3128")
	c.RedisURL = secret.Text("redis://user:" + fakeSecret + "@redis.example.com:6379/0")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "pointer", &c, "upstreams", c.Upstreams)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "pointer", &c, "upstreams", c.Upstreams)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	prints := []string{string(asJSON), log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		prints = append(prints, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c))
	}
	for i, s := range prints {
		if strings.Contains(s, fakeSecret) || strings.Contains(s, fmt.Sprintf("%x", fakeSecret)) {
			t.Errorf("print %d shows the secret: %s", i, s)
		}
	}
	c.Upstreams[0].EgressProxy = upstream.Secret("ftp://user:" + fakeSecret + "@proxy")
	c.Upstreams[0].Keys[0].Secret = upstream.Secret(fakeSecret + "\n")
	if err := c.Validate(); err == nil || strings.Contains(err.Error(), fakeSecret) {
		t.Errorf("errors about bad secrets: %v", err)
	}
}
