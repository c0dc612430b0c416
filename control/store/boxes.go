package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// InsertBox adds a box, which shall run.
func (t *Tx) InsertBox(ctx context.Context, b control.Box) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO boxes (id, customer_id, namespace, state, wants, created_at, updated_at, changed_at) VALUES ($1, $2, $3, $4, coalesce(nullif($6, ''), 'run'), $5, $5, $5)`,
		b.ID, b.CustomerID, b.Namespace, b.State, b.CreatedAt, string(b.Wants))
	return explain("insert box", err)
}

// Boxes lists the boxes of a customer, oldest first.
func (t *Tx) Boxes(ctx context.Context, customer string) ([]control.Box, error) {
	rows, _ := t.tx.Query(ctx, selectBoxes+` WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	boxes, err := pgx.CollectRows(rows, scanBox)
	return boxes, explain("boxes of customer "+customer, err)
}

// Box reads one box.
func (s *Store) Box(ctx context.Context, id string) (control.Box, error) {
	rows, _ := s.pool.Query(ctx, selectBoxes+` WHERE id = $1`, id)
	b, err := pgx.CollectExactlyOneRow(rows, scanBox)
	return b, explain("box "+id, err)
}

// UnfinishedBoxes lists the boxes that are not destroyed, oldest first.
func (s *Store) UnfinishedBoxes(ctx context.Context) ([]control.Box, error) {
	rows, _ := s.pool.Query(ctx, selectBoxes+` WHERE state <> 'destroyed' ORDER BY created_at, id`)
	list, err := pgx.CollectRows(rows, scanBox)
	return list, explain("unfinished boxes", err)
}

// BoxesPage lists boxes by age, oldest first, of one customer or, with "", of all, and in one
// state or, with "", in any.
func (s *Store) BoxesPage(ctx context.Context, customer string, state control.BoxState, after control.PageKey, limit int) ([]control.Box, error) {
	where := ofCustomer(customer)
	args := []any{after.At, after.ID, customer, limit}
	switch {
	case state != "" && customer == "":
		where = ` WHERE (created_at, id) > ($1, $2) AND $3 = '' AND state = $5` + byAge
		args = append(args, string(state))
	case state != "":
		where = ` WHERE (created_at, id) > ($1, $2) AND customer_id = $3 AND state = $5` + byAge
		args = append(args, string(state))
	}
	rows, _ := s.pool.Query(ctx, selectBoxes+where, args...)
	list, err := pgx.CollectRows(rows, scanBox)
	return list, explain("list boxes", err)
}

const selectBoxDetails = `SELECT ` + boxColumns + `, settings, has_telegram_token, held, coalesce(size, ''), rotation, restart FROM boxes`

func scanBoxDetail(row pgx.CollectableRow) (d control.BoxDetail, err error) {
	err = row.Scan(append(boxFields(&d.Box), &d.Settings, &d.HasTelegramToken, &d.Held, &d.Size, &d.Rotation, &d.Restart)...)
	d.Box, d.Steps = inUTC(d.Box), []control.BoxStep{}
	d.Trouble = control.BoxTroubleOf(d.Message)
	if d.Wants == control.BoxRun {
		d.WaitsFor = control.BoxWaitsFor(d.ID, d.HasTelegramToken, len(d.Settings.TelegramUsers))
	}
	return d, err
}

// BoxDetails lists the boxes of a customer with their steps, oldest first. It may run within
// Store.ForCustomer.
func (t *Tx) BoxDetails(ctx context.Context, customer string) ([]control.BoxDetail, error) {
	rows, _ := t.tx.Query(ctx, selectBoxDetails+` WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	list, err := pgx.CollectRows(rows, scanBoxDetail)
	if err != nil || len(list) == 0 {
		return list, explain("boxes of customer "+customer, err)
	}
	steps := make(map[string][]control.BoxStep)
	rows, _ = t.tx.Query(ctx, selectBoxSteps+` WHERE customer_id = $1 ORDER BY started_at, name`, customer)
	if err := eachStep(rows, func(box string, s control.BoxStep) { steps[box] = append(steps[box], s) }); err != nil {
		return nil, explain("steps of boxes of customer "+customer, err)
	}
	for i := range list {
		if s := steps[list[i].ID]; s != nil {
			list[i].Steps = s
		}
	}
	return list, nil
}

// BoxDetail reads one box with its steps. It may run within Store.ForCustomer.
func (t *Tx) BoxDetail(ctx context.Context, id string) (control.BoxDetail, error) {
	rows, _ := t.tx.Query(ctx, selectBoxDetails+` WHERE id = $1`, id)
	d, err := pgx.CollectExactlyOneRow(rows, scanBoxDetail)
	if err != nil {
		return d, explain("box "+id, err)
	}
	rows, _ = t.tx.Query(ctx, selectBoxSteps+` WHERE box_id = $1 ORDER BY started_at, name`, id)
	err = eachStep(rows, func(_ string, s control.BoxStep) { d.Steps = append(d.Steps, s) })
	return d, explain("steps of box "+id, err)
}

// BoxDetailForOperators reads one box with its steps, theirs with the texts for operators, and what
// operators read instead of its message; "" if there is no more to say. It is not for
// Store.ForCustomer, which may not.
func (t *Tx) BoxDetailForOperators(ctx context.Context, id string) (d control.BoxDetail, text string, err error) {
	if d, err = t.BoxDetail(ctx, id); err != nil {
		return d, "", err
	}
	if text, err = t.BoxText(ctx, id); err != nil {
		return d, "", err
	}
	type step struct {
		generation int64
		name       string
	}
	details := make(map[step]string)
	var of step
	var detail string
	rows, _ := t.tx.Query(ctx, `SELECT generation, name, detail FROM box_steps WHERE box_id = $1 AND detail IS NOT NULL`, id)
	if _, err := pgx.ForEachRow(rows, []any{&of.generation, &of.name, &detail}, func() error { details[of] = detail; return nil }); err != nil {
		return d, "", explain("details of steps of box "+id, err)
	}
	for i, s := range d.Steps {
		d.Steps[i].Detail = details[step{s.Generation, s.Name}]
	}
	return d, text, nil
}

// BoxText returns what operators read of a box instead of its message; "" if there is no more to say.
func (t *Tx) BoxText(ctx context.Context, id string) (text string, err error) {
	err = t.tx.QueryRow(ctx, `SELECT detail FROM boxes WHERE id = $1`, id).Scan(&text)
	return text, explain("detail of box "+id, err)
}

const selectBoxSteps = `SELECT box_id, name, generation, started_at, finished_at, coalesce(error, '') FROM box_steps`

func eachStep(rows pgx.Rows, do func(box string, s control.BoxStep)) error {
	var box string
	var s control.BoxStep
	var finished *time.Time
	_, err := pgx.ForEachRow(rows, []any{&box, &s.Name, &s.Generation, &s.StartedAt, &finished, &s.Error}, func() error {
		s.StartedAt, s.FinishedAt = s.StartedAt.UTC(), orZero(finished)
		do(box, s)
		return nil
	})
	return err
}

// SealedTelegramToken returns a box's bot token as SealTelegramToken was given it; nil if it has
// none.
func (t *Tx) SealedTelegramToken(ctx context.Context, box string) (sealed []byte, err error) {
	err = t.tx.QueryRow(ctx, `SELECT telegram_token FROM boxes WHERE id = $1`, box).Scan(&sealed)
	return sealed, explain("token of box "+box, err)
}

// BoxOfBot returns the box that has the Telegram bot of a digest; control.ErrNotFound if none has.
func (t *Tx) BoxOfBot(ctx context.Context, digest []byte) (control.Box, error) {
	rows, _ := t.tx.Query(ctx, selectBoxes+` WHERE telegram_digest = $1 AND telegram_token IS NOT NULL`, digest)
	b, err := pgx.CollectExactlyOneRow(rows, scanBox)
	return b, explain("box of a bot", err)
}

// NoteBot notes by which digest the bot of a box's sealed token is recognised, if what is noted is none or
// another one (a release that knew no digests has changed the token, or the pepper was changed) and no other box
// has the bot. Nothing of the box changes.
func (t *Tx) NoteBot(ctx context.Context, box string, sealed, digest []byte) error {
	_, err := t.tx.Exec(ctx, `
		UPDATE boxes SET telegram_digest = $3 WHERE id = $1 AND telegram_token = $2 AND telegram_digest IS DISTINCT FROM $3
			AND NOT EXISTS (SELECT FROM boxes WHERE telegram_digest = $3 AND telegram_token IS NOT NULL AND id <> $1)`, box, sealed, digest)
	return explain("note the bot of box "+box, err)
}

// ResealTelegramToken replaces a box's bot token by itself, sealed with another key, unless it
// is another one by now, and reports whether it was not. Nothing of the box changes.
func (t *Tx) ResealTelegramToken(ctx context.Context, actor string, b control.Box, before, after []byte) (bool, error) {
	tag, err := t.tx.Exec(ctx, `UPDATE boxes SET telegram_token = $3 WHERE id = $1 AND telegram_token = $2`, b.ID, before, after)
	if err != nil || tag.RowsAffected() == 0 {
		return false, explain("reseal token of box "+b.ID, err)
	}
	return true, t.AddAudit(ctx, control.Audit{Actor: actor, Action: "box.reseal", CustomerID: b.CustomerID, Target: b.ID})
}

// BoxesWithSecrets lists boxes that have a bot token, at most limit, by id from after on.
func (s *Store) BoxesWithSecrets(ctx context.Context, after string, limit int) ([]control.Box, error) {
	rows, _ := s.pool.Query(ctx, selectBoxes+` WHERE id > $1 AND has_telegram_token ORDER BY id LIMIT $2`, after, limit)
	list, err := pgx.CollectRows(rows, scanBox)
	return list, explain("boxes with secrets", err)
}

// BoxDecision is something that is decided about a box. What is left out stays.
type BoxDecision struct {
	Action   string // for the audit log
	Wants    control.BoxWants
	Hold     *bool // see control.BoxDetail
	Settings *control.BoxSettings
	Size     *string // see control.BoxDetail
	// TelegramToken is a sealed one, of the bot that TelegramBot is the digest of; empty and not nil
	// removes both. If another box has that bot, DecideBox is control.ErrExists.
	TelegramToken []byte
	TelegramBot   []byte
	Rotate        bool
	Restart       bool
	Detail        map[string]any // for the audit log; no secrets
}

// DecideBox notes what is decided about a box, in a generation of its own, and returns what the
// box is then. Of a box that is to be destroyed already only that may be decided, which then
// changes nothing; anything else is control.ErrInvalid. The caller has locked the customer, and
// wakes the operator of the boxes in the same transaction.
func (t *Tx) DecideBox(ctx context.Context, actor string, b control.Box, d BoxDecision) (control.Box, error) {
	op := d.Action + " of box " + b.ID
	var settings []byte
	if d.Settings != nil {
		var err error
		if settings, err = json.Marshal(d.Settings); err != nil {
			return b, fmt.Errorf("%s: %w", op, err)
		}
	}
	rows, _ := t.tx.Query(ctx, `
		UPDATE boxes SET generation = generation + 1, updated_at = now(),
			wants = coalesce(nullif($2, ''), wants), held = coalesce($3, held),
			settings = coalesce($4::jsonb, settings), size = CASE WHEN $5::text IS NULL THEN size ELSE nullif($5, '') END,
			telegram_token = CASE WHEN $2 = 'destroy' THEN NULL WHEN $6::bytea IS NULL THEN telegram_token ELSE nullif($6::bytea, ''::bytea) END,
			telegram_digest = CASE WHEN $2 = 'destroy' THEN NULL WHEN $6::bytea IS NULL THEN telegram_digest ELSE $9::bytea END,
			rotation = rotation + $7, restart = restart + $8
		WHERE id = $1 AND wants <> 'destroy' RETURNING `+boxColumns,
		b.ID, string(d.Wants), d.Hold, settings, d.Size, d.TelegramToken, one(d.Rotate), one(d.Restart), d.TelegramBot)
	after, err := pgx.CollectExactlyOneRow(rows, scanBox)
	if errors.Is(err, pgx.ErrNoRows) {
		rows, _ = t.tx.Query(ctx, selectBoxes+` WHERE id = $1`, b.ID)
		after, err = pgx.CollectExactlyOneRow(rows, scanBox)
		if err == nil && d.Wants != control.BoxDestroy {
			err = fmt.Errorf("%w: it is to be destroyed", control.ErrInvalid)
		}
		return after, explain(op, err)
	}
	if err != nil {
		return b, explain(op, err)
	}
	detail := map[string]any{"generation": after.Generation}
	for k, v := range d.Detail {
		detail[k] = v
	}
	if after.Wants != b.Wants {
		detail["before"], detail["after"] = b.Wants, after.Wants
	}
	return after, t.AddAudit(ctx, control.Audit{Actor: actor, Action: d.Action, CustomerID: after.CustomerID, Target: after.ID, Detail: detail})
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
