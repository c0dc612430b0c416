package main_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Both ways tell what customers have used of their limits, and whom it is nearly used up for, past the
// first page too.
func TestCustomersByWhatTheyUsed(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*env{"by the api": newAPIEnv(t).env, "on the databases": newEnv(t)} {
		e.pg.Query("INSERT INTO customers (id, name, tier, created_at) SELECT 'c' || n, 'x', 'starter', now() + n * interval '1 second' FROM generate_series(1, 1203) n")
		e.pg.Query(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens)
			SELECT 'c' || n, 'p', now() - interval '1 hour', now() + interval '1 hour', 1000, 1, CASE n WHEN 1202 THEN 899 WHEN 2 THEN 2500 ELSE 931 END FROM generate_series(1, 1202) n`)
		var list []control.ListedCustomer
		e.ok(&list, "customer", "list", "--used-from", "90")
		if len(list) != 1201 || list[0].ID != "c1" || list[1200].ID != "c1201" || list[1200].Period == nil || *list[1200].Period != (control.LimitUse{Used: 931, Limit: 1000, Percent: 93}) {
			t.Errorf("%s: %d customers, the last of them %+v", name, len(list), list[max(len(list)-1, 0):])
		}
		for args, want := range map[string]int{"--used-from 250": 1, "--used-from 251": 0, "--used-from 0": 1202, "--used-from 89 --limit 700": 700, "--used-from 90 --status suspended": 0} {
			if e.ok(&list, append([]string{"customer", "list"}, strings.Fields(args)...)...); len(list) != want {
				t.Errorf("%s: %s: %d customers, want %d", name, args, len(list), want)
			}
		}
		table := e.run("customer", "list")
		for _, row := range []string{`CUSTOMER .* STATUS +USED +CREATED`, `c1 .* active +93 % +20\S+`, `c2 .* active +250 % +20\S+`, `c1202 .* active +89 % +20\S+`, `c1203 .* active +- +20\S+`} {
			if table.code != 0 || !regexp.MustCompile(fmt.Sprintf(`(?m)^%s$`, row)).MatchString(table.stdout) {
				t.Errorf("%s: exit code %d, no row %q in\n%.600s%s", name, table.code, row, table.stdout, table.stderr)
			}
		}
	}
}
