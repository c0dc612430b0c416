package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// A report sets the state of the generation that it is about, and nothing if there is a newer one; a
// box that is destroyed stays so.
func TestReportBox(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	_, box, _ := addCustomer(t, st)
	ctx := t.Context()
	pg.Query(`INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint) VALUES ('t1', '` + box.CustomerID + `', '` + box.ID + `', sha256('t1'), 'abcd')`)
	report := func(r control.BoxReport) (before, after control.Box, err error) {
		r.BoxID = box.ID
		err = st.InTx(ctx, func(tx *store.Tx) (err error) { before, after, err = tx.ReportBox(ctx, "op", r); return err })
		return before, after, err
	}
	decide := func(d store.BoxDecision) control.Box {
		t.Helper()
		err := st.InTx(ctx, func(tx *store.Tx) error {
			now, err := st.Box(ctx, box.ID)
			if err == nil {
				box, err = tx.DecideBox(ctx, "x", now, d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return box
	}
	audited := func(list []control.AuditEntry, err error) string {
		t.Helper()
		kept, jerr := json.Marshal(list)
		if err != nil || jerr != nil || !strings.Contains(string(kept), `"took_us":3000000`) {
			t.Errorf("%s, %v, %v", kept, err, jerr)
		}
		return string(kept)
	}
	began := time.Now().UTC().Truncate(time.Microsecond)
	steps := func(names ...string) (out []control.BoxStep) {
		for i, name := range names {
			out = append(out, control.BoxStep{Name: name, StartedAt: began.Add(time.Duration(i) * time.Second), FinishedAt: began.Add(time.Duration(i+1) * time.Second)})
		}
		return out
	}
	detail := func() (d control.BoxDetail) {
		t.Helper()
		if err := st.InTx(ctx, func(tx *store.Tx) (err error) { d, err = tx.BoxDetail(ctx, box.ID); return err }); err != nil {
			t.Fatal(err)
		}
		return d
	}

	before, after, err := report(control.BoxReport{Generation: 1, State: control.BoxProvisioning, Message: strings.Repeat("ã", 2000), Steps: steps("namespace", "secret")})
	if err != nil || before.State != control.BoxPending || after.State != control.BoxProvisioning || after.Observed != 1 || len([]rune(after.Message)) != 1000 || after.ChangedAt.Before(before.ChangedAt) {
		t.Fatalf("%+v, %+v, %v", before, after, err)
	}
	again := steps("secret")[0]
	again.Error, again.Detail, again.FinishedAt = "quota", "of node-7", time.Time{}
	if _, _, err := report(control.BoxReport{Generation: 1, State: control.BoxActive, Detail: "on node-7", Steps: []control.BoxStep{again}, Operation: "provision", Took: 3 * time.Second, Failure: "of node-8"}); err != nil {
		t.Fatal(err)
	}
	d := detail()
	if d.State != control.BoxActive || d.Message != "" || len(d.Steps) != 2 || d.Steps[1].Name != "secret" || d.Steps[1].Error != "quota" || !d.Steps[1].FinishedAt.IsZero() || !d.Steps[0].StartedAt.Equal(began) {
		t.Errorf("%+v", d)
	}
	// Operators see more, and customers cannot.
	if err := st.InTx(ctx, func(tx *store.Tx) error {
		d, text, err := tx.BoxDetailForOperators(ctx, box.ID)
		if err != nil || text != "on node-7" || len(d.Steps) != 2 || d.Steps[0].Detail != "" || d.Steps[1].Detail != "of node-7" {
			t.Errorf("%+v, %q, %v", d, text, err)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if kept, err := json.Marshal(detail()); err != nil || strings.Contains(string(kept), "node-7") {
		t.Errorf("%s, %v", kept, err)
	}
	if err := st.ForCustomer(ctx, box.CustomerID, func(tx *store.Tx) error {
		d, err := tx.Export(ctx, box.CustomerID)
		if text := audited(d.Audit, err); strings.Contains(text, "node-7") || strings.Contains(text, "node-8") {
			t.Errorf("a customer exports %s", text)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if text := audited(st.AuditPage(ctx, box.CustomerID, 0, 10)); !strings.Contains(text, "on node-7") || !strings.Contains(text, "of node-8") {
		t.Errorf("operators read %s", text)
	}
	// The same once more leaves no second entry, and a look that finds nothing new writes nothing.
	if _, _, err := report(control.BoxReport{Generation: 1, State: control.BoxActive, Detail: "on node-7", Operation: "provision", Took: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	row := pg.Query("SELECT xmin, ctid FROM boxes")
	if _, _, err := report(control.BoxReport{Generation: 1, State: control.BoxActive, Detail: "on node-7"}); err != nil {
		t.Fatal(err)
	}
	if got := pg.Query("SELECT xmin, ctid FROM boxes"); got != row {
		t.Error("nothing new was written")
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(action || ' ' || (detail->>'state') || coalesce(' ' || (detail->>'took_us'), ''), ', ' ORDER BY id) FROM audit_log WHERE actor = 'op'`)); got != "box.state provisioning, box.provision active 3000000" {
		t.Errorf("audit log: %s", got)
	}

	if got := decide(store.BoxDecision{Action: "box.restart", Restart: true}); got.Generation != 2 || got.Observed != 1 || got.State != control.BoxActive {
		t.Errorf("%+v", got)
	}
	if _, _, err := report(control.BoxReport{Generation: 3, State: control.BoxActive}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a generation that there is not: %v", err)
	}
	if _, after, err := report(control.BoxReport{Generation: 2, State: control.BoxUpdating, Steps: steps("gateway")}); err != nil || after.Observed != 2 {
		t.Fatalf("%+v, %v", after, err)
	}
	if d := detail(); len(d.Steps) != 1 || d.Steps[0].Generation != 2 || d.Restart != 1 {
		t.Errorf("steps of the generation before are kept: %+v", d)
	}
	if _, after, err := report(control.BoxReport{Generation: 1, State: control.BoxFailed, Message: "late", Steps: steps("late"), Operation: "provision", Took: time.Hour}); err != nil || after.State != control.BoxUpdating || after.Message != "" {
		t.Errorf("a late report: %+v, %v", after, err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT count(*) FROM audit_log WHERE detail::text LIKE '%late%' OR detail::text LIKE '%3600%'`)); got != "0" || len(detail().Steps) != 1 {
		t.Error("a late report left something")
	}
	for what, r := range map[string]control.BoxReport{"no state": {Generation: 2}, "too many steps": {Generation: 2, State: control.BoxActive, Steps: make([]control.BoxStep, 101)}} {
		if _, _, err := report(r); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, state := range []control.BoxState{control.BoxDestroying, control.BoxDestroyed} {
		if _, _, err := report(control.BoxReport{Generation: 2, State: state}); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "it shall run") {
			t.Errorf("%s, although nobody wanted it: %v", state, err)
		}
	}

	decide(store.BoxDecision{Action: "box.destroy", Wants: control.BoxDestroy})
	if _, _, err := report(control.BoxReport{Generation: 3, State: control.BoxDestroyed}); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "1 of its tokens") {
		t.Errorf("destroyed with a token: %v", err)
	}
	pg.Query(`UPDATE proxy_tokens SET status = 'revoked', revoked_at = now()`)
	for _, state := range []control.BoxState{control.BoxDestroying, control.BoxDestroyed} {
		if _, after, err := report(control.BoxReport{Generation: 3, State: state}); err != nil || after.State != state {
			t.Fatalf("%+v, %v", after, err)
		}
	}
	if _, after, err := report(control.BoxReport{Generation: 3, State: control.BoxActive}); err != nil || after.State != control.BoxDestroyed {
		t.Errorf("after it was destroyed: %+v, %v", after, err)
	}
	if list, err := st.UnfinishedBoxes(ctx); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if got := decide(store.BoxDecision{Action: "box.destroy", Wants: control.BoxDestroy}); got.Generation != 3 {
		t.Errorf("destroyed again: %+v", got)
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.DecideBox(ctx, "x", box, store.BoxDecision{Action: "box.restart", Restart: true})
		return err
	}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a decision after the last one: %v", err)
	}
	if _, err := st.Box(ctx, "nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
}

// Boxes are found by their state, page by page, of all and of one.
func TestBoxesByState(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, box, _ := addCustomer(t, st)
	addCustomer(t, st)
	for i := range 5 {
		pg.Query(fmt.Sprintf(`INSERT INTO boxes (id, customer_id, namespace, state) VALUES ('f%d', '%s', 'f%[1]d', 'failed')`, i, c.ID))
	}
	var seen []string
	for after := (control.PageKey{}); ; {
		list, err := st.BoxesPage(t.Context(), "", control.BoxFailed, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list {
			seen = append(seen, b.ID)
			after = control.PageKey{At: b.CreatedAt, ID: b.ID}
		}
		if len(list) < 2 {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "f0 f1 f2 f3 f4" {
		t.Errorf("failed boxes: %s", got)
	}
	for state, want := range map[control.BoxState]int{control.BoxPending: 1, control.BoxFailed: 5, control.BoxActive: 0, "": 6} {
		if list, err := st.BoxesPage(t.Context(), c.ID, state, control.PageKey{}, 10); err != nil || len(list) != want {
			t.Errorf("%q: %d, %v", state, len(list), err)
		}
	}
	if list, err := st.UnfinishedBoxes(t.Context()); err != nil || len(list) != 7 || list[0].ID != box.ID {
		t.Errorf("%+v, %v", list, err)
	}
}
