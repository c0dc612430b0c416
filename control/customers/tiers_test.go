package customers_test

import (
	"os"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
)

// A process that has never looked goes by the tier table that another one has put into
// effect: for new customers, and for grants that are written anew.
func TestTiersOfAnotherProcess(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.openEpoch()
	_, old := e.token(e.customer("starter").Customer.ID)
	table, err := os.ReadFile("../tiers/tiers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// another is a process that has just begun.
	another := func() *customers.Service {
		s := *e.Service
		if s.Tiers, err = tiers.Default(); err != nil {
			t.Fatal(err)
		}
		return &s
	}
	set := func(pairs ...string) {
		t.Helper()
		text := strings.NewReplacer(pairs...).Replace(string(table))
		if changed, err := another().SetTiers(t.Context(), "test", []byte(text)); err != nil || !changed {
			t.Fatalf("changed: %t, %v", changed, err)
		}
	}
	set("monthly_tokens: 1_000_000", "monthly_tokens: 3_000_000", "concurrent: 4", "concurrent: 6", "name: pro", "name: gold")
	for tier, limit := range map[string]int64{"starter": 3_000_000, "gold": 5_000_000} {
		made, err := another().CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: tier})
		if err != nil || made.Period.LimitTokens != limit || made.Customer.Tier != tier {
			t.Errorf("%s: %+v, %v", tier, made, err)
		}
	}
	if _, err := another().CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: "pro"}); err == nil {
		t.Error("a tier that is not sold any more was given to a new customer")
	}
	if g := e.grant(old.Digest); g.Concurrent != 4 {
		t.Fatalf("before: %+v", g)
	}
	if _, err := another().RepublishAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(old.Digest); g.Concurrent != 6 {
		t.Errorf("republished by hand: %+v", g)
	}
	set("concurrent: 4", "concurrent: 7", "name: pro", "name: gold")
	e.redis.FlushAll()
	if _, err := another().RepublishLost(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(old.Digest); g.Concurrent != 7 {
		t.Errorf("republished after a loss: %+v", g)
	}

	// One of a newer program: nobody is left without grants for it, but by hand nothing is
	// written that is known to be out of date.
	e.pg.Query("INSERT INTO tier_tables (content) VALUES ('from: the future')")
	if done, err := another().RepublishAll(t.Context()); err == nil || done.Tokens != 0 {
		t.Errorf("by hand: %+v, %v", done, err)
	}
	e.redis.FlushAll()
	if done, _ := another().RepublishLost(t.Context()); done.Tokens != 1 {
		t.Errorf("after a loss: %+v", done)
	}
}

// Boxes are changed by a table that has others for them, and by no other.
func TestRollOutOfBoxes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.openEpoch()
	c := e.customer("pro")
	for i, step := range []struct {
		pairs []string
		want  string
	}{{[]string{"concurrent: 8", "concurrent: 9"}, "1"}, {[]string{"concurrent: 8", "concurrent: 9", "memory_mib: 2048", "memory_mib: 2100"}, "2"}} {
		if err := e.sell(step.pairs...); err != nil {
			t.Fatal(err)
		}
		if n, err := e.RollOutTiers(t.Context()); err != nil || n != 1 {
			t.Fatalf("%d, %v", n, err)
		}
		if got := e.row(`SELECT generation FROM boxes WHERE id = '%s'`, c.Box.ID); got != step.want {
			t.Errorf("table %d: generation %s, want %s", i, got, step.want)
		}
	}
}

// A customer whose grants cannot be computed holds up no other, and has no other done again.
// A table that was not rolled out to its end leaves nobody with its grants.
func TestRollOutGoesOn(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.openEpoch()
	_, well := e.token(e.customer("pro").Customer.ID)
	bad := e.customer("pro").Customer.ID
	e.token(bad)
	e.pg.Query("UPDATE customers SET created_at = now() + interval '1 day' WHERE id = '" + bad + "'")
	e.pg.Query("DELETE FROM usage_periods WHERE customer_id = '" + bad + "'")
	if err := e.sell("concurrent: 8", "concurrent: 9"); err != nil {
		t.Fatal(err)
	}
	version := func() int64 {
		t.Helper()
		g := e.grant(well.Digest)
		if g == nil {
			t.Fatal("no grant")
		}
		return g.Version
	}
	if n, err := e.RollOutTiers(t.Context()); err == nil || n != 1 {
		t.Fatalf("with one that fails: %d, %v", n, err)
	}
	first := version()
	if g := e.grant(well.Digest); g.Concurrent != 9 {
		t.Errorf("the other one: %+v", g)
	}
	if n, err := e.RollOutTiers(t.Context()); err == nil || n != 0 || version() != first {
		t.Errorf("again: %d customers, %v; version %d after %d", n, err, version(), first)
	}
	// Back to what was in effect before.
	if err := e.sell("title: Team", "title: Teams"); err != nil {
		t.Fatal(err)
	}
	e.pg.Query("UPDATE customers SET created_at = now() - interval '1 day' WHERE id = '" + bad + "'")
	if n, err := e.RollOutTiers(t.Context()); err != nil || n != 1 {
		t.Errorf("back: %d, %v", n, err)
	}
	if g := e.grant(well.Digest); g.Concurrent != 8 {
		t.Errorf("back: %+v", g)
	}
	if n, err := e.RollOutTiers(t.Context()); err != nil || n != 0 {
		t.Errorf("all done: %d, %v", n, err)
	}
}
