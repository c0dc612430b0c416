package customers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// boxOperator is who the audit log names for what the operator of the boxes did.
const boxOperator = "system:box-operator"

// MailAdder adds mails to the outbox; see jobs.Jobs.
type MailAdder interface {
	AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (fresh bool, err error)
}

// Boxes is what the operator of the boxes reads and writes of them: operator.Books. Its fields
// are set once; it is safe for concurrent use.
type Boxes struct {
	// Service has a Hasher, Later, and Seals if any box has a secret.
	Service *Service
	// Mails tells customers that their agent is there. Without it they are not told.
	Mails MailAdder

	term int64 // see Lead
}

// Lead returns the books of an operator that has begun to lead: from now on those of the ones before
// refuse to write, with control.ErrFenced, upon which their operator has to end. It is called
// once the operator leads, and before it looks at any box. Books that nobody leads by are not
// kept from writing.
func (b *Boxes) Lead(ctx context.Context) (*Boxes, error) {
	term, err := b.Service.Store.BeginBoxOperator(ctx)
	if err != nil {
		return nil, err
	}
	out := *b
	out.term = term
	return &out, nil
}

// leading runs do unless another operator leads by now, which is control.ErrFenced. The customer
// is locked then: whatever that one does comes after this.
func (b *Boxes) leading(ctx context.Context, do func(*change) error) func(*change) error {
	return func(c *change) error {
		if err := c.tx.BoxOperatorLeads(ctx, b.term); err != nil {
			return err
		}
		return do(c)
	}
}

// Unfinished lists the boxes that are not destroyed, oldest first.
func (b *Boxes) Unfinished(ctx context.Context) ([]control.Box, error) {
	return b.Service.Store.UnfinishedBoxes(ctx)
}

// Desired reads what a box shall be. The error is control.ErrNotFound if there is no such box. A
// Telegram token that cannot be read is no error of this, see control.DesiredBox: who is not to run
// any more must not run on because of it.
func (b *Boxes) Desired(ctx context.Context, boxID string) (control.DesiredBox, error) {
	var out control.DesiredBox
	err := b.Service.Store.InTx(ctx, func(tx *store.Tx) error {
		// Who leads no more begins no pass: what it would write to the cluster nobody else refuses.
		if err := tx.BoxOperatorLeads(ctx, b.term); err != nil {
			return err
		}
		if err := b.Service.followTiers(ctx, tx); err != nil {
			return err
		}
		// The box first: what is decided after that has a generation after it.
		d, err := tx.BoxDetail(ctx, boxID)
		if err != nil {
			return err
		}
		out = control.DesiredBox{Box: d.Box, Rotation: d.Rotation, Restart: d.Restart}
		if out.Detail, err = tx.BoxText(ctx, boxID); err != nil {
			return err
		}
		account, err := tx.Account(ctx, d.CustomerID)
		if err != nil {
			return err
		}
		tokens, err := tx.TokensOfBox(ctx, d.CustomerID, boxID)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			if t.Status != contract.StatusRevoked {
				out.Tokens = append(out.Tokens, t)
			}
		}
		if d.Wants == control.BoxDestroy {
			return nil // of which nothing is needed that might stand in its way
		}
		if out.Tier, err = b.Service.Tiers.Get(account.Tier); err != nil {
			return err
		}
		// A tier that is not sold any more leaves the box the size of its own.
		if size, err := b.Service.Tiers.Get(d.Size); d.Size != "" && err == nil {
			out.Tier.PodRequests, out.Tier.PodLimits = size.PodRequests, size.PodLimits
		}
		out.Settings = complete(d.Settings, account.Language, out.Tier)
		sealed, err := tx.SealedTelegramToken(ctx, boxID)
		if err != nil {
			return err
		}
		if sealed != nil {
			if out.TelegramToken, err = b.Service.Seals.Open(sealed, placeOfTelegramToken(boxID)...); err != nil {
				out.TelegramToken, out.TelegramTokenError = "", fmt.Errorf("Telegram token: %w", err)
			} else if err := b.noteBot(ctx, tx, boxID, sealed, out.TelegramToken); err != nil {
				return err
			}
		}
		if d.Wants == control.BoxRun {
			out.WaitsFor = control.BoxWaitsFor(boxID, sealed != nil, len(out.Settings.TelegramUsers))
		}
		return nil
	})
	if err != nil {
		return control.DesiredBox{}, fmt.Errorf("desired state of box %s: %w", boxID, err)
	}
	return out, nil
}

// noteBot has the bot of a box recognised that was given to it by a release that knew no digest.
func (b *Boxes) noteBot(ctx context.Context, tx *store.Tx, boxID string, sealed []byte, token secret.Text) error {
	if b.Service.Hasher == nil {
		return nil
	}
	return tx.NoteBot(ctx, boxID, sealed, b.Service.botDigest(token))
}

// placeOfTelegramToken is what a sealed token is bound to.
func placeOfTelegramToken(boxID string) []string { return []string{boxID, "telegram_token"} }

// complete fills in what was not chosen, and leaves out what the tier does not allow.
func complete(s control.BoxSettings, language control.Language, tier control.Tier) control.BoxSettings {
	if s.Language == "" {
		s.Language = language
	}
	if s.TimeZone == "" {
		s.TimeZone = "UTC"
	}
	if s.Thinking == "" {
		s.Thinking = tier.Thinking
	}
	if !tier.CustomSystemPrompt {
		s.SystemPrompt = ""
	}
	if len(s.TelegramUsers) > tier.TelegramUsers {
		s.TelegramUsers = slices.Clone(s.TelegramUsers[:tier.TelegramUsers])
	}
	return s
}

// Report notes what was found or done; see store.ReportBox. A customer gets a mail when a box is
// active for the first time, and at most one a day when one is unhealthy, but none of a box that is
// not to run any more.
func (b *Boxes) Report(ctx context.Context, r control.BoxReport) error {
	r.Term = b.term
	return b.Service.Store.InTx(ctx, func(tx *store.Tx) error {
		before, after, err := tx.ReportBox(ctx, boxOperator, r)
		if err != nil || before.State == after.State {
			return err
		}
		return b.tell(ctx, tx, after)
	})
}

// tell adds the mail about a box's new state, if there is one.
func (b *Boxes) tell(ctx context.Context, tx *store.Tx, box control.Box) error {
	m := control.Mail{CustomerID: box.CustomerID}
	switch {
	case b.Mails == nil || box.Wants != control.BoxRun:
		return nil
	case box.State == control.BoxActive:
		m.Kind, m.Cause = control.MailAgentLive, box.ID
	case box.State == control.BoxUnhealthy:
		m.Kind, m.Cause = control.MailAgentDown, box.ID+"/"+b.Service.now().Format(time.DateOnly)
	default:
		return nil
	}
	customer, err := tx.Account(ctx, box.CustomerID)
	if err != nil {
		return err
	}
	m.Params = map[string]any{"name": customer.Name}
	_, err = b.Mails.AddMail(ctx, tx, m)
	return err
}

// RegisterToken makes a token that is in the box's Secret one that the proxies know, and returns
// once they may know it. It is control.ErrInvalid for a box that is to be destroyed or whose
// customer is cancelled, and control.ErrConflict for a token that was revoked, is to be, or is
// another box's: the box needs another one. The digest of a token that is registered already changes nothing.
func (b *Boxes) RegisterToken(ctx context.Context, boxID string, raw contract.Token) (control.ProxyToken, error) {
	s := b.Service
	if s.Hasher == nil {
		return control.ProxyToken{}, errors.New("register token: no token pepper is configured")
	}
	box, err := s.Store.Box(ctx, boxID)
	if err != nil {
		return control.ProxyToken{}, fmt.Errorf("register token: %w", err)
	}
	token := control.ProxyToken{
		ID: control.NewID(control.TokenID), CustomerID: box.CustomerID, BoxID: boxID, Digest: s.Hasher.Digest([]byte(raw.Reveal())),
		Hint: raw.Hint(), Version: 1, Status: contract.StatusActive, CreatedAt: s.now(),
	}
	err = s.change(ctx, box.CustomerID, b.leading(ctx, func(c *change) error {
		if st := c.customer.Status; st == control.CustomerCancelled || st == control.CustomerPending {
			return fmt.Errorf("%w: customer %s is %s", control.ErrInvalid, box.CustomerID, st)
		}
		d, err := c.tx.BoxDetail(ctx, boxID)
		if err != nil {
			return err
		}
		if d.Wants == control.BoxDestroy {
			return fmt.Errorf("%w: it is to be destroyed", control.ErrInvalid)
		}
		known, err := c.tx.TokenByDigest(ctx, token.Digest)
		if err == nil {
			token = known
			return c.knownToken(ctx, boxID, known)
		}
		if !errors.Is(err, control.ErrNotFound) {
			return err
		}
		if err := c.tx.InsertToken(ctx, token); err != nil {
			return err
		}
		if err := c.announce(ctx, token); err != nil {
			return err
		}
		return c.tx.AddAudit(ctx, control.Audit{
			Actor: boxOperator, Action: "token.create", CustomerID: token.CustomerID, Target: token.ID,
			Detail: map[string]any{"box": boxID, "hint": token.Hint},
		})
	}))
	if err != nil {
		return control.ProxyToken{}, fmt.Errorf("register token of box %s: %w", boxID, err)
	}
	return token, nil
}

// knownToken checks a token that is registered, and has it published if that did not succeed yet.
func (c *change) knownToken(ctx context.Context, boxID string, t control.ProxyToken) error {
	switch {
	case t.BoxID != boxID:
		return fmt.Errorf("%w: token %s is another box's", control.ErrConflict, t.ID)
	case t.Status == contract.StatusRevoked:
		return fmt.Errorf("%w: token %s is revoked", control.ErrConflict, t.ID)
	case !t.EndsAt.IsZero():
		return fmt.Errorf("%w: token %s ends at %s", control.ErrConflict, t.ID, t.EndsAt.Format(time.RFC3339))
	}
	ids, err := c.tx.UnpublishedChanges(ctx, c.customer.ID, t.Digest)
	c.outbox = append(c.outbox, ids...)
	return err
}

// RevokeTokens revokes all tokens of a box but one ("" for none), after overlap, or at once if
// that is 0. It returns once the proxies may know. Tokens that end already end no later.
func (b *Boxes) RevokeTokens(ctx context.Context, boxID, butTokenID string, overlap time.Duration) error {
	s := b.Service
	box, err := s.Store.Box(ctx, boxID)
	switch {
	case err != nil:
	case overlap < 0 || overlap > 0 && s.Later == nil:
		err = fmt.Errorf("%w: nothing here can revoke a token later", control.ErrInvalid)
	case overlap == 0:
		err = s.locked(ctx, box.CustomerID, b.leading(ctx, func(c *change) error { return s.revokeAll(ctx, c, boxOperator, boxID, butTokenID) }))
	default:
		err = s.change(ctx, box.CustomerID, b.leading(ctx, func(c *change) error { return s.endAll(ctx, c, boxID, butTokenID, s.now().Add(overlap)) }))
	}
	if err != nil {
		return fmt.Errorf("revoke tokens of box %s: %w", boxID, err)
	}
	return nil
}

// endAll has the tokens of a box but one revoked at a time.
func (s *Service) endAll(ctx context.Context, c *change, boxID, butTokenID string, at time.Time) error {
	tokens, err := c.tokensOf(ctx, boxID)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.ID == butTokenID || !t.EndsAt.IsZero() && !t.EndsAt.After(at) {
			continue
		}
		if err := s.endLater(ctx, c, t, at); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: boxOperator, Action: "token.end", CustomerID: c.customer.ID, Target: t.ID, Detail: map[string]any{"box": boxID, "at": at},
		}); err != nil {
			return err
		}
	}
	return nil
}

// resealErrors is how many failures Reseal tells of one by one.
const resealErrors = 20

// Reseal seals anew what was sealed with another key than the first, and returns how many secrets
// that were. One that cannot be opened or written holds up no other; the error then says how many, and of
// which boxes. Without an error the other keys are needed no more, unless a process still seals
// with them. Any number of processes may call it.
func (b *Boxes) Reseal(ctx context.Context, actor string) (done int, err error) {
	const page = 100
	var errs []error
	failed := 0
	for after := ""; ; {
		boxes, err := b.Service.Store.BoxesWithSecrets(ctx, after, page)
		if err != nil {
			return done, fmt.Errorf("reseal: %w", errors.Join(append(errs, err)...))
		}
		for _, box := range boxes {
			after = box.ID
			changed, err := b.reseal(ctx, actor, box)
			if err != nil {
				if failed++; failed <= resealErrors {
					errs = append(errs, fmt.Errorf("the Telegram token of box %s: %w", box.ID, err))
				}
			}
			if changed {
				done++
			}
		}
		switch {
		case ctx.Err() != nil:
			return done, fmt.Errorf("reseal: %w", ctx.Err())
		case len(boxes) == page:
			continue
		case failed > 0:
			return done, fmt.Errorf("reseal: %d secrets are still sealed as they were, and %d are sealed anew: %w", failed, done, errors.Join(errs...))
		}
		return done, nil
	}
}

func (b *Boxes) reseal(ctx context.Context, actor string, box control.Box) (changed bool, err error) {
	err = b.Service.Store.InTx(ctx, func(tx *store.Tx) error {
		sealed, err := tx.SealedTelegramToken(ctx, box.ID)
		if err != nil || sealed == nil || b.Service.Seals.Newest(sealed) {
			return err
		}
		place := placeOfTelegramToken(box.ID)
		plain, err := b.Service.Seals.Open(sealed, place...)
		if err != nil {
			return err
		}
		again, err := b.Service.Seals.Seal(plain, place...)
		if err != nil {
			return err
		}
		changed, err = tx.ResealTelegramToken(ctx, actor, box, sealed, again)
		return err
	})
	return changed, err
}

// errNoSeals says what is missing to keep a secret.
var errNoSeals = errors.New("no key to seal secrets with is configured")
