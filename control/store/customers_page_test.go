package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// customersOf reads pages of customers, for every.
func customersOf(t *testing.T, st *store.Store, of control.CustomersFilter, at time.Time) func(after control.PageKey, limit int) ([]control.PageKey, error) {
	return func(after control.PageKey, limit int) (keys []control.PageKey, err error) {
		list, err := st.CustomersPage(t.Context(), of, at, after, limit)
		for _, c := range list {
			keys = append(keys, control.PageKey{At: c.CreatedAt, ID: c.ID})
		}
		return keys, err
	}
}

// Customers are found by the beginning of their name or address, in any case and any
// alphabet, page by page; what a pattern would mean is a letter.
func TestSearchCustomers(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	for i, c := range []string{
		"'Ada Lovelace', 'ada@example.com', 'active'", "'Émile', 'ADAM@example.com', 'suspended'", "'adamant', NULL, 'active'", "'Bob', 'bob@ada.example.com', 'active'",
		"'A_a', NULL, 'active'", "'100 %', NULL, 'pending'",
	} {
		pg.Query(fmt.Sprintf("INSERT INTO customers (id, tier, created_at, name, email, status) VALUES ('c%d', 'pro', now() + interval '%d s', %s)", i, i, c))
	}
	for _, s := range []struct {
		prefix string
		status control.CustomerStatus
		want   string
	}{
		{"ada", "", "c0 c1 c2"}, {"ADA", control.CustomerActive, "c0 c2"}, {"ada@", "", "c0"}, {"ÉM", "", "c1"}, {"a_", "", "c4"}, {"%", "", ""},
		{"100 %", "", "c5"}, {"Ada Lovelace", "", "c0"}, {"zzz", "", ""}, {"", control.CustomerSuspended, "c1"},
	} {
		every(t, fmt.Sprintf("%q, %q", s.prefix, s.status), strings.Fields(s.want), customersOf(t, st, control.CustomersFilter{Prefix: s.prefix, Status: s.status}, time.Now()))
	}
}

// A list says what is used of the limit of the present period, and can be asked for those who have used a
// part of it: the part is reached by the token, not by rounding, and the pages stay in order.
func TestCustomersByWhatTheyUsed(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, c := range []struct {
		name, status  string
		used, limit   int64
		starts, hours int // of the period, from now on; hours 0: there is none
	}{
		{"Ada", "active", 899_999, 1_000_000, -1, 2},
		{"Bob", "active", 900_000, 1_000_000, -1, 2},
		{"Cid", "active", 0, 0, 0, 0},
		{"Ada", "suspended", 950, 1000, -1, 2},
		{"Dan", "active", 999, 1000, -3, 2}, // over
		{"Eve", "active", 999, 1000, 1, 2},  // not begun
		{"Ann", "active", 0, 1000, -1, 2},
		{"Abe", "active", 0, 0, -1, 2},
		{"Fay", "active", 2500, 1000, -1, 2},
		{"Gil", "active", 8_999_999_999_999_999_999, 9_000_000_000_000_000_000, -1, 2},
	} {
		// Those that come later here are older, two of an age.
		pg.Query(fmt.Sprintf(`INSERT INTO customers (id, name, tier, status, created_at) VALUES ('c%d', '%s', 'pro', '%s', '%s')`,
			i, c.name, c.status, now.Add(-time.Duration(i/2)*time.Second).Format(time.RFC3339Nano)))
		if c.hours > 0 {
			at := now.Add(time.Duration(c.starts) * time.Hour)
			pg.Query(fmt.Sprintf(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens)
				VALUES ('c%d', 'p', '%s', '%s', %d, 1, %d)`, i, at.Format(time.RFC3339Nano), at.Add(time.Duration(c.hours)*time.Hour).Format(time.RFC3339Nano), c.limit, c.used))
		}
	}
	// Another period that has not ended, of which the ledger knows no limit, and an older one that overlaps.
	pg.Query(`INSERT INTO usage_periods (customer_id, period_id, settled_tokens) VALUES ('c2', 'unknown', 5), ('c1', 'unknown', 5)`)
	pg.Query(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens)
		VALUES ('c6', 'older', now() - interval '90 minutes', now() + interval '90 minutes', 10, 1, 10)`)

	list, err := st.CustomersPage(t.Context(), control.CustomersFilter{}, now, control.PageKey{}, 20)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range list {
		text := c.ID + " -"
		if p := c.Period; p != nil {
			text = fmt.Sprintf("%s %d/%d %d%%", c.ID, p.Used, p.Limit, p.Percent)
		}
		said = append(said, text)
	}
	const want = "c8 2500/1000 250%, c9 8999999999999999999/9000000000000000000 99%, c6 0/1000 0%, c7 0/0 100%, c4 -, c5 -, c2 -, c3 950/1000 95%, " +
		"c0 899999/1000000 89%, c1 900000/1000000 90%"
	if got := strings.Join(said, ", "); got != want {
		t.Errorf("listed %s\nwant   %s", got, want)
	}

	from := func(n int) *int { return &n }
	for _, s := range []struct {
		of   control.CustomersFilter
		at   time.Time
		want string
	}{
		{control.CustomersFilter{}, now, "c8 c9 c6 c7 c4 c5 c2 c3 c0 c1"},
		{control.CustomersFilter{UsedFrom: from(0)}, now, "c8 c9 c6 c7 c3 c0 c1"},
		{control.CustomersFilter{UsedFrom: from(1)}, now, "c8 c9 c7 c3 c0 c1"},
		{control.CustomersFilter{UsedFrom: from(89)}, now, "c8 c9 c7 c3 c0 c1"},
		{control.CustomersFilter{UsedFrom: from(90)}, now, "c8 c9 c7 c3 c1"},
		{control.CustomersFilter{UsedFrom: from(100)}, now, "c8 c7"},
		{control.CustomersFilter{UsedFrom: from(250)}, now, "c8"},
		{control.CustomersFilter{UsedFrom: from(251)}, now, ""},
		{control.CustomersFilter{UsedFrom: from(90), Status: control.CustomerActive}, now, "c8 c9 c7 c1"},
		{control.CustomersFilter{UsedFrom: from(90), Prefix: "a"}, now, "c7 c3"},
		{control.CustomersFilter{UsedFrom: from(0), Prefix: "a", Status: control.CustomerActive}, now, "c6 c7 c0"},
		{control.CustomersFilter{UsedFrom: from(90)}, now.Add(-2 * time.Hour), "c4"},
		{control.CustomersFilter{UsedFrom: from(90)}, now.Add(2 * time.Hour), "c5"},
	} {
		every(t, fmt.Sprintf("%+v, want %q", s.of, s.want), strings.Fields(s.want), customersOf(t, st, s.of, s.at))
	}
}
