package tiers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
)

func TestDefaultTable(t *testing.T) {
	t.Parallel()
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name              string
		cents, tokens     int64
		concurrent, users int
		overage           int64
		requestMilli      int64
		requestMiB        int64
		limitMiB          int64
		prompt            bool
		thinking          string
	}{
		{"starter", 1900, 1_000_000, 4, 1, 300, 50, 704, 1536, false, "medium"},
		{"pro", 4900, 5_000_000, 8, 1, 300, 100, 896, 2048, true, "medium"},
		{"team", 12900, 20_000_000, 32, 10, 200, 200, 1024, 3072, true, "high"},
	} {
		tier, err := table.Get(want.name)
		if err != nil {
			t.Error(err)
			continue
		}
		if tier.PriceCents != want.cents || tier.MonthlyTokens != want.tokens || tier.Concurrent != want.concurrent ||
			tier.TelegramUsers != want.users || tier.OverageCentsPerMillion != want.overage ||
			tier.PodRequests.CPUMillis != want.requestMilli || tier.PodRequests.MemoryMiB != want.requestMiB || tier.PodLimits.MemoryMiB != want.limitMiB ||
			tier.CustomSystemPrompt != want.prompt || tier.Thinking != want.thinking {
			t.Errorf("tier %s: %+v", want.name, tier)
		}
	}
	if _, err := table.Get("gold"); !errors.Is(err, control.ErrNotFound) || !strings.Contains(err.Error(), "starter") {
		t.Errorf("unknown tier: %v, want ErrNotFound that names the choices", err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const good = `tiers: [{name: a, title: A, price_cents: 1, monthly_tokens: 1, requests_per_second: 1, burst: 1, concurrent: 1,
		weights: {prompt: 1, cached: 1, completion: 1}, pod_requests: {cpu_millis: 1, memory_mib: 1}, pod_limits: {cpu_millis: 1, memory_mib: 1},
		thinking: low, telegram_users: 1}]`
	if _, err := tiers.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new string }{
		{"misspelt field", "monthly_tokens", "montly_tokens"},
		{"no tokens", "monthly_tokens: 1", "monthly_tokens: 0"},
		{"no burst", "burst: 1", "burst: 0"},
		{"requests above limits", "pod_requests: {cpu_millis: 1,", "pod_requests: {cpu_millis: 2,"},
		{"thinking", "thinking: low", "thinking: deep"},
		{"negative weight", "prompt: 1", "prompt: -1"},
		{"empty", good, "tiers: []"},
		{"nothing", good, ""},
	} {
		if _, err := tiers.Parse([]byte(strings.Replace(good, c.old, c.new, 1))); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
}
