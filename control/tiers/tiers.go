// Package tiers reads the tier table, which is data: tiers.yaml beside this file is
// the default one, and an operator can bring another.
package tiers

import (
	"bytes"
	_ "embed"
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

//go:embed tiers.yaml
var defaultTable string

type file struct {
	Tiers []struct {
		Name                   string    `yaml:"name"`
		Title                  string    `yaml:"title"`
		PriceCents             int64     `yaml:"price_cents"`
		MonthlyTokens          int64     `yaml:"monthly_tokens"`
		OverageCentsPerMillion int64     `yaml:"overage_cents_per_million"`
		RequestsPerSecond      float64   `yaml:"requests_per_second"`
		Burst                  int       `yaml:"burst"`
		Concurrent             int       `yaml:"concurrent"`
		Weights                weights   `yaml:"weights"`
		Models                 []string  `yaml:"models"`
		PodRequests            resources `yaml:"pod_requests"`
		PodLimits              resources `yaml:"pod_limits"`
		Thinking               string    `yaml:"thinking"`
		TelegramUsers          int       `yaml:"telegram_users"`
		CustomSystemPrompt     bool      `yaml:"custom_system_prompt"`
	} `yaml:"tiers"`
}

type weights struct {
	Prompt     int64 `yaml:"prompt"`
	Cached     int64 `yaml:"cached"`
	Completion int64 `yaml:"completion"`
}

type resources struct {
	CPUMillis int64 `yaml:"cpu_millis"`
	MemoryMiB int64 `yaml:"memory_mib"`
}

// Default returns the table that is compiled in.
func Default() (control.Tiers, error) { return Parse([]byte(defaultTable)) }

// Parse reads and validates a tier table. Unknown fields are errors, so that a
// misspelt one is not silently the zero value.
func Parse(b []byte) (control.Tiers, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return control.Tiers{}, fmt.Errorf("parse tier table: %w", err)
	}
	list := make([]control.Tier, 0, len(f.Tiers))
	for _, t := range f.Tiers {
		list = append(list, control.Tier{
			Name: t.Name, Title: t.Title,
			PriceCents: t.PriceCents, MonthlyTokens: t.MonthlyTokens, OverageCentsPerMillion: t.OverageCentsPerMillion,
			RequestsPerSecond: t.RequestsPerSecond, Burst: t.Burst, Concurrent: t.Concurrent,
			Weights: contract.Weights(t.Weights), Models: t.Models,
			PodRequests: control.PodResources(t.PodRequests), PodLimits: control.PodResources(t.PodLimits),
			Thinking: t.Thinking, TelegramUsers: t.TelegramUsers, CustomSystemPrompt: t.CustomSystemPrompt,
		})
	}
	tiers, err := control.NewTiers(list)
	if err != nil {
		return control.Tiers{}, fmt.Errorf("parse tier table: %w", err)
	}
	return tiers, nil
}
