package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// The worker removes what was published long ago, and its metrics tell of what was set
// aside.
func TestOutboxIsLookedAfter(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	add := func(extra, values string) {
		world.pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, payload %s) VALUES ('limit', '%s', '{}' %s)`, extra, world.customer, values))
	}
	add(", published_at, feed_seq", ", now() - interval '9 days', 1")
	add(", published_at, feed_seq", ", now() - interval '9 days', 2")
	add(", published_at, feed_seq", ", now() - interval '7 days', 3")
	add("", "") // is published at once
	world.pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, digest, payload) VALUES ('grant', '%s', '\x%064d', '{}')`, world.customer, 0))
	w := startWorker(t, world.env, "--keep-published-changes", "192h")
	await(t, "the old ones' end", func() bool {
		return strings.TrimSpace(world.pg.Query("SELECT string_agg(id::text, ' ' ORDER BY id) FROM config_changes")) == "3 4 5"
	}, w.said)
	await(t, "the metrics", func() bool {
		_, body := w.get("/metrics")
		return strings.Contains(body, "\ncontrol_outbox_failed_changes 1\n") && strings.Contains(body, "\ncontrol_outbox_pending_changes 0\n") &&
			strings.Contains(body, "\ncontrol_outbox_oldest_seconds 0\n")
	}, w.said)
	if n := strings.Count(w.said(), "set aside"); n != 1 {
		t.Errorf("the log tells of it %d times", n)
	}
}
