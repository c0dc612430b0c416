package control_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

func date(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s+"Z")
	if err != nil {
		panic(err)
	}
	return t
}

func TestMonthsAfterStaysWithinTheMonth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from string
		n    int
		want string
	}{
		{"2026-01-31T10:00:00", 1, "2026-02-28T10:00:00"},
		{"2028-01-31T10:00:00", 1, "2028-02-29T10:00:00"},
		{"2026-01-31T10:00:00", 2, "2026-03-31T10:00:00"},
		{"2026-01-31T10:00:00", 3, "2026-04-30T10:00:00"},
		{"2026-12-15T00:00:00", 1, "2027-01-15T00:00:00"},
		{"2026-11-30T23:59:59", 13, "2027-12-30T23:59:59"},
		{"2026-05-05T05:05:05", 0, "2026-05-05T05:05:05"},
	} {
		if got := control.MonthsAfter(date(c.from), c.n); !got.Equal(date(c.want)) {
			t.Errorf("MonthsAfter(%s, %d) = %s, want %s", c.from, c.n, got.Format(time.RFC3339), c.want)
		}
	}
}

// Every moment belongs to exactly one period of the chain, and the chain has no gaps.
func TestPeriodsOfAChainTouch(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"2026-01-31T10:20:30", "2026-02-28T00:00:00", "2024-02-29T23:59:59", "2026-12-01T00:00:00"} {
		anchor := date(from)
		first := control.FirstPeriod("c1", anchor, 100)
		if !first.Start.Equal(anchor) || first.ID != anchor.Format("20060102T150405Z") || first.LimitVersion != 1 {
			t.Fatalf("first period %+v", first)
		}
		end := first.End
		for now, n := anchor, 0; n < 1500; now, n = now.Add(13*time.Hour), n+1 {
			p := control.PeriodAt("c1", anchor, now, 100)
			if !p.Contains(now) {
				t.Fatalf("anchor %s: period %s…%s does not contain %s", from, p.Start, p.End, now)
			}
			if p.Start.After(end) || p.Start.Before(end) && !p.End.Equal(end) {
				t.Fatalf("anchor %s: period that begins at %s does not touch the one that ends at %s", from, p.Start, end)
			}
			end = p.End
			if q := control.PeriodAt("c1", anchor, p.End, 100); !q.Start.Equal(p.End) || q.ID == p.ID {
				t.Fatalf("anchor %s: after %s comes %s", from, p.End, q.Start)
			}
		}
	}
}

func TestIDsAreNamespaceLabels(t *testing.T) {
	t.Parallel()
	label := regexp.MustCompile(`^c[a-z2-7]{16}$`)
	seen := make(map[string]bool)
	for range 1000 {
		id := control.NewID(control.CustomerID)
		if !label.MatchString(id) || seen[id] {
			t.Fatalf("id %q (seen before: %v)", id, seen[id])
		}
		seen[id] = true
	}
}
