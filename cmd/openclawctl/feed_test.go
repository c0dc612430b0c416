package main_test

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestRepublishByHand(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	var k token
	e.ok(&k, "token", "create", "--customer", c.Customer.ID)
	e.redis.FlushAll()
	var done struct{ Customers, Tokens, Skipped int }
	e.ok(&done, "feed", "republish")
	if done.Customers != 1 || done.Tokens != 1 || done.Skipped != 0 {
		t.Errorf("republished %+v", done)
	}
	if g := e.grant(k.Token); g.Status != contract.StatusActive || g.MonthlyLimit != 1_000_000 {
		t.Errorf("grant %+v", g)
	}
	e.pg.Query("UPDATE customers SET tier = 'gone'")
	r := e.run("feed", "republish")
	if r.code != 1 || !strings.Contains(r.stdout, "SKIPPED") || !strings.Contains(r.stderr, k.ID) || !strings.Contains(r.stderr, `tier "gone"`) {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
