package main_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The tier table is changed while the worker runs: what the file says reaches the grants of
// those who have the tier. One that is wrong changes nothing, and the log says why.
func TestTierFileIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	table, err := os.ReadFile("../../control/tiers/tiers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tiers.yaml")
	write := func(old, new string) {
		t.Helper()
		text := strings.Replace(string(table), old, new, 1)
		if text == string(table) && old != new {
			t.Fatalf("%q is not in the table", old)
		}
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("", "")
	w.env["TIERS_FILE"] = file
	worker := startWorker(t, w.env)
	await(t, "readiness", func() bool { code, _ := worker.get("/readyz"); return code == 200 }, worker.said)

	client := w.redis.Client()
	await(t, "the epoch of the limits", func() bool {
		return client.HGet(context.Background(), contract.QuotaEpochKey, "state").Val() == "open"
	}, worker.said)
	usual, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	service := &customers.Service{
		Store: w.store, Tiers: usual, Grants: feed.NewPublisher(client), Limits: limits.NewRecords(w.store, client, time.Second), Hasher: hasher,
	}
	digest := func(tier string) contract.Digest {
		t.Helper()
		made, err := service.CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: tier})
		if err != nil {
			t.Fatal(err)
		}
		raw, _, err := service.CreateToken(t.Context(), "test", made.Customer.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		return hasher.Digest([]byte(raw.Reveal()))
	}
	starter, team := digest("starter"), digest("team")
	grant := func(d contract.Digest) *contract.Grant {
		t.Helper()
		b, err := client.Get(context.Background(), contract.GrantKey(d)).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		g, err := contract.DecodeGrant(b)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	refused := func() bool {
		_, metrics := worker.get("/metrics")
		return strings.Contains(metrics, "\ncontrol_tier_file_refused 1\n")
	}
	before := grant(team).Version
	if g := grant(starter); g.Concurrent != 4 || g.MonthlyLimit != 1_000_000 {
		t.Fatalf("grant %+v", g)
	}

	write("concurrent: 4", "concurrent: 6")
	await(t, "the grant of the new table", func() bool { return grant(starter).Concurrent == 6 }, worker.said)
	if g := grant(starter); g.MonthlyLimit != 1_000_000 {
		t.Errorf("the running period's limit became %d", g.MonthlyLimit)
	}
	if got := grant(team).Version; got != before {
		t.Errorf("a tier that did not change has new grants: version %d, and %d before", got, before)
	}

	for _, bad := range []struct{ old, new, says string }{
		{"concurrent: 4", "concurrent: -1", "concurrent must be positive"},
		{"burst: 20", "brust: 20", "field brust not found"},
		{"name: team", "name: crew", `it lacks tier \"team\", which customers have`},
	} {
		write(bad.old, bad.new)
		await(t, "a word about "+bad.new, func() bool {
			said := strings.ReplaceAll(worker.said(), `\\\"`, `\"`)
			return strings.Contains(said, bad.says) && strings.Contains(said, "the old table stays")
		}, worker.said)
		if !refused() {
			t.Errorf("%s: the metric does not show it", bad.new)
		}
		if g := grant(starter); g.Concurrent != 6 {
			t.Errorf("%s: the grant became %+v", bad.new, g)
		}
	}

	// Other processes have it without the file, also for what is new.
	if late := digest("starter"); grant(late).Concurrent != 6 {
		t.Errorf("a new token's grant is of the old table: %+v", grant(late))
	}
	write("monthly_tokens: 1_000_000", "monthly_tokens: 2_000_000")
	await(t, "the next table", func() bool { return grant(starter).Concurrent == 4 }, worker.said)
	if refused() {
		t.Error("the metric still shows a refusal")
	}
	// One that was away for a moment, and is back as it was.
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	await(t, "the metric to show that there is no file", refused, worker.said)
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	await(t, "the metric to show that it is back", func() bool { return !refused() }, worker.said)
	if err := service.LoadTiers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := grant(digest("starter")); g.MonthlyLimit != 2_000_000 {
		t.Errorf("the first period of a new customer has %d tokens", g.MonthlyLimit)
	}
	if got := strings.TrimSpace(w.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'tiers.set'")); got != "3" {
		t.Errorf("%s tables in the audit log, want 3", got)
	}
}

// An api that was never given the file sells what is in effect: from its first answer on, and
// what comes later too.
func TestAPIFollowsTheTierTable(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	table, err := os.ReadFile("../../control/tiers/tiers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	usual, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	service := &customers.Service{Store: world.store, Tiers: usual}
	set := func(cents string) {
		t.Helper()
		text := strings.Replace(string(table), "price_cents: 1900", "price_cents: "+cents, 1)
		if changed, err := service.SetTiers(t.Context(), "test", []byte(text)); err != nil || !changed {
			t.Fatalf("changed: %t, %v", changed, err)
		}
	}
	set("2100")
	w, _, address, _ := startAPI(t, world)
	sold := func() string {
		t.Helper()
		time.Sleep(200 * time.Millisecond) // strangers must not ask too often
		r, err := http.Get("http://" + address + "/v1/tiers")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", r.Status, err)
		}
		return string(body)
	}
	if got := sold(); !strings.Contains(got, `"price_cents":2100`) {
		t.Errorf("at first it sells %s", got)
	}
	set("2300")
	await(t, "the new price", func() bool { return strings.Contains(sold(), `"price_cents":2300`) }, w.said)
}
