package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// What proxies announce is shown to people in columns and to programs as the api has it.
func TestTraffic(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	e.pg.Query(`INSERT INTO replicas (id, registered_at, status) VALUES ('ra', now(), 'live'), ('rb', now() - interval '2 hours', 'live')`)
	said, err := json.Marshal(contract.Traffic{Started: 1, Uptime: 1000, InFlight: 7, Streams: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.redis.Client().Set(t.Context(), contract.TrafficKey("ra"), said, 0).Err(); err != nil {
		t.Fatal(err)
	}
	got := e.run("traffic")
	rows := map[string]string{}
	for line := range strings.Lines(got.stdout) {
		if f := strings.Fields(line); len(f) > 1 {
			rows[f[0]] = strings.Join(f[1:], " ")
		}
	}
	if got.code != 0 || rows["ra"] != "7 3 - - -" || rows["all"] != "7 3 - - -" || rows["rb"] != "silent" {
		t.Errorf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	var v struct {
		InFlight int64    `json:"in_flight"`
		Silent   []string `json:"silent"`
	}
	if e.ok(&v, "traffic"); v.InFlight != 7 || len(v.Silent) != 1 {
		t.Errorf("as JSON %+v", v)
	}
}
