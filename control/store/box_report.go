package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	maxBoxSteps = 100  // of a report
	maxBoxText  = 1000 // characters of a message or an error
)

// ReportBox notes what was found or done about a box, and returns what it was before and is
// now. A report of an older generation than the one that was reported last changes nothing, nor does
// any of a box that is destroyed; one of a generation that there is not is control.ErrInvalid,
// as is that a box is destroyed which is not to be, or has tokens that are not revoked; and
// one of an operator after which another one has begun to lead is control.ErrFenced.
// A change of the state and the end of an operation are written to the audit log; an operation
// once, however often it is reported.
func (t *Tx) ReportBox(ctx context.Context, actor string, r control.BoxReport) (before, after control.Box, err error) {
	op := "report of box " + r.BoxID
	rows, _ := t.tx.Query(ctx, selectBoxes+` WHERE id = $1 FOR NO KEY UPDATE`, r.BoxID)
	if before, err = pgx.CollectExactlyOneRow(rows, scanBox); err != nil {
		return before, before, explain(op, err)
	}
	// With the box locked: whatever the next operator reports comes after this.
	if err := t.BoxOperatorLeads(ctx, r.Term); err != nil {
		return before, before, fmt.Errorf("%s: %w", op, err)
	}
	tokens := 0
	if r.State == control.BoxDestroyed {
		if err := t.tx.QueryRow(ctx, `SELECT count(*) FROM proxy_tokens WHERE customer_id = $1 AND box_id = $2 AND status <> 'revoked'`,
			before.CustomerID, before.ID).Scan(&tokens); err != nil {
			return before, before, explain(op, err)
		}
	}
	switch {
	case r.Generation > before.Generation:
		return before, before, fmt.Errorf("%s: %w: there is no generation %d yet", op, control.ErrInvalid, r.Generation)
	case before.State == control.BoxDestroyed || r.Generation < before.Observed:
		return before, before, nil
	case len(r.Steps) > maxBoxSteps:
		return before, before, fmt.Errorf("%s: %w: %d steps are too many", op, control.ErrInvalid, len(r.Steps))
	case (r.State == control.BoxDestroying || r.State == control.BoxDestroyed) && before.Wants != control.BoxDestroy:
		return before, before, fmt.Errorf("%s: %w: it shall %s", op, control.ErrInvalid, before.Wants)
	case r.State == control.BoxDestroyed && tokens > 0:
		return before, before, fmt.Errorf("%s: %w: %d of its tokens are not revoked", op, control.ErrInvalid, tokens)
	case r.State == "":
		return before, before, fmt.Errorf("%s: %w: it has no state", op, control.ErrInvalid)
	}
	rows, _ = t.tx.Query(ctx, `
		UPDATE boxes SET state = $2, observed_generation = $3, message = $4, detail = $5, updated_at = now(),
			changed_at = CASE WHEN state <> $2 THEN now() ELSE changed_at END
		WHERE id = $1 AND (state, observed_generation, message, detail) IS DISTINCT FROM ($2, $3, $4, $5) RETURNING `+boxColumns,
		r.BoxID, string(r.State), r.Generation, shortened(r.Message), shortened(r.Detail))
	if after, err = pgx.CollectExactlyOneRow(rows, scanBox); errors.Is(err, pgx.ErrNoRows) {
		after = before
	} else if err != nil {
		return before, before, explain(op, err)
	}
	if err := t.putBoxSteps(ctx, before, r); err != nil {
		return before, before, explain(op, err)
	}
	if err := t.auditReport(ctx, actor, r, before, after); err != nil {
		return before, before, err
	}
	return before, after, nil
}

// BeginBoxOperator returns the term of an operator of the boxes that begins to lead.
func (s *Store) BeginBoxOperator(ctx context.Context) (term int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT nextval('box_operators')`).Scan(&term)
	return term, explain("begin the term of an operator of boxes", err)
}

// BoxOperatorLeads is control.ErrFenced for a term of BeginBoxOperator after which another one has
// begun. 0 is not checked.
func (t *Tx) BoxOperatorLeads(ctx context.Context, term int64) error {
	if term == 0 {
		return nil
	}
	var last int64
	err := t.tx.QueryRow(ctx, `SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM box_operators`).Scan(&last)
	if err != nil {
		return explain("term of the operator of boxes", err)
	}
	if term < last {
		return fmt.Errorf("operator of boxes of term %d, and not %d: %w", last, term, control.ErrFenced)
	}
	return nil
}

// putBoxSteps keeps the steps of one generation.
func (t *Tx) putBoxSteps(ctx context.Context, b control.Box, r control.BoxReport) error {
	if b.Observed != r.Generation {
		if _, err := t.tx.Exec(ctx, `DELETE FROM box_steps WHERE box_id = $1 AND generation < $2`, b.ID, r.Generation); err != nil {
			return err
		}
	}
	for _, s := range r.Steps {
		if s.Generation != 0 && s.Generation != r.Generation {
			continue // of a generation that is over
		}
		if _, err := t.tx.Exec(ctx, `
			INSERT INTO box_steps (box_id, customer_id, generation, name, started_at, finished_at, error, detail) VALUES ($1, $2, $3, $4, $5, $6, nullif($7, ''), nullif($8, ''))
			ON CONFLICT (box_id, generation, name) DO UPDATE SET
				started_at = excluded.started_at, finished_at = excluded.finished_at, error = excluded.error, detail = excluded.detail`,
			b.ID, b.CustomerID, r.Generation, s.Name, s.StartedAt, orNull(s.FinishedAt), shortened(s.Error), shortened(s.Detail)); err != nil {
			return err
		}
	}
	return nil
}

// What of an entry about a box may name parts of the cluster: operators read it, and nobody else.
const (
	auditedMessage = "message"
	auditedFailure = "failure"
)

// auditReport writes an entry for an operation that has ended, or else for another state.
func (t *Tx) auditReport(ctx context.Context, actor string, r control.BoxReport, before, after control.Box) error {
	a := control.Audit{
		Actor: actor, Action: "box.state", CustomerID: after.CustomerID, Target: after.ID,
		Detail: map[string]any{"generation": r.Generation, "state": after.State},
	}
	if before.State != after.State {
		a.Detail["before"] = before.State
	}
	if text := shortened(cmp.Or(r.Detail, r.Message)); text != "" {
		a.Detail[auditedMessage] = text
	}
	if r.Operation == "" {
		if before.State == after.State {
			return nil
		}
		return t.AddAudit(ctx, a)
	}
	a.Action = "box." + r.Operation
	// By this and the generation it is recognised when it is reported again.
	a.Detail["took_us"] = r.Took.Microseconds()
	if r.Failure != "" {
		a.Detail[auditedFailure] = shortened(r.Failure)
	}
	same, err := json.Marshal(map[string]any{"generation": r.Generation, "took_us": r.Took.Microseconds()})
	if err != nil {
		return fmt.Errorf("audit of box %s: %w", after.ID, err)
	}
	var known bool
	if err := t.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM audit_log WHERE customer_id = $1 AND at > now() - interval '1 day' AND action = $2 AND target = $3 AND detail @> $4)`,
		after.CustomerID, a.Action, after.ID, same).Scan(&known); err != nil {
		return explain("audit of box "+after.ID, err)
	}
	if known {
		return nil
	}
	return t.AddAudit(ctx, a)
}

// shortened fits a text for people into its column.
func shortened(text string) string {
	if text == "" {
		return ""
	}
	r := []rune(errorText(text))
	if len(r) > maxBoxText {
		r = append(r[:maxBoxText-1], '…')
	}
	return string(r)
}
