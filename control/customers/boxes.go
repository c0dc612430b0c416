package customers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// BoxWaker has the operator of the boxes look at one once the transaction is committed; see
// jobs.Jobs.
type BoxWaker interface {
	WakeBox(ctx context.Context, tx *store.Tx, boxID string) error
}

// BoxRef says which box is meant.
type BoxRef struct {
	ID         string
	CustomerID string // whose it must be; "" for any's
}

// newBox returns a box that is to be made.
func newBox(customerID, namespace string, now time.Time) control.Box {
	return control.Box{
		ID: control.NewID(control.BoxID), CustomerID: customerID, Namespace: namespace,
		State: control.BoxPending, Wants: control.BoxRun, Generation: 1, CreatedAt: now, ChangedAt: now,
	}
}

// namespace names that of a new box. Those of earlier ones may not be gone yet.
func (c *change) namespace(ctx context.Context) (string, error) {
	boxes, err := c.tx.Boxes(ctx, c.customer.ID)
	if err != nil {
		return "", err
	}
	name := "customer-" + c.customer.ID
	if len(boxes) > 0 {
		name = fmt.Sprintf("%s-%d", name, len(boxes)+1)
	}
	return name, nil
}

// AddBox gives a customer one more box, or another one for one that was destroyed. Its live
// subscription, if it has one, pays for it. A customer that is not served, or that owes, gets none:
// control.ErrInvalid.
func (s *Service) AddBox(ctx context.Context, actor, customerID, reason string) (control.BoxDetail, error) {
	var out control.BoxDetail
	err := s.locked(ctx, customerID, func(c *change) error {
		if c.customer.Status != control.CustomerActive {
			return fmt.Errorf("%w: customer %s is %s", control.ErrInvalid, customerID, c.customer.Status)
		}
		if paid, err := c.paid(ctx); err != nil || !paid {
			return cmp.Or(err, fmt.Errorf("%w: customer %s has not paid for its subscription", control.ErrInvalid, customerID))
		}
		namespace, err := c.namespace(ctx)
		if err != nil {
			return err
		}
		box := newBox(customerID, namespace, s.now())
		if err := c.tx.InsertBox(ctx, box); err != nil {
			return err
		}
		v, err := c.tx.LiveSubscription(ctx, customerID)
		if err == nil {
			err = c.tx.LinkBox(ctx, actor, box.ID, customerID, v.ID)
		}
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "box.create", CustomerID: customerID, Target: box.ID, Detail: map[string]any{"reason": reason},
		}); err != nil {
			return err
		}
		if err := s.wake(ctx, c.tx, box.ID); err != nil {
			return err
		}
		if out, err = c.tx.BoxDetail(ctx, box.ID); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, out)
	})
	if err != nil {
		return out, fmt.Errorf("add box: %w", err)
	}
	return out, nil
}

func (s *Service) wake(ctx context.Context, tx *store.Tx, boxID string) error {
	if s.Wake == nil {
		return nil
	}
	return s.Wake.WakeBox(ctx, tx, boxID)
}

// decide is store.DecideBox, after which the operator looks at the box.
func (c *change) decide(ctx context.Context, actor string, box control.Box, d store.BoxDecision) (control.Box, error) {
	after, err := c.tx.DecideBox(ctx, actor, box, d)
	if err != nil || after.Generation == box.Generation {
		return after, err
	}
	return after, c.wake(ctx, c.tx, box.ID)
}

// want has boxes become something else, where they are not to be that already. What an
// operator suspended comes back by an operator only.
func (c *change) want(ctx context.Context, actor string, boxes []control.Box, wants control.BoxWants) error {
	actions := map[control.BoxWants]string{control.BoxRun: "box.resume", control.BoxSuspend: "box.suspend", control.BoxDestroy: "box.destroy"}
	for _, box := range boxes {
		if box.Wants == wants || box.Wants == control.BoxDestroy {
			continue
		}
		if wants == control.BoxRun {
			d, err := c.tx.BoxDetail(ctx, box.ID)
			if err != nil {
				return err
			}
			if d.Held {
				continue
			}
		}
		if _, err := c.decide(ctx, actor, box, store.BoxDecision{Action: actions[wants], Wants: wants}); err != nil {
			return err
		}
	}
	return nil
}

// fitBoxes has the customer's boxes changed to what its tier gives now. A size that an operator
// gave one ends with the tier that it was given for.
func (c *change) fitBoxes(ctx context.Context, actor string, detail map[string]any) error {
	boxes, err := c.tx.Boxes(ctx, c.customer.ID)
	if err != nil {
		return err
	}
	_, another := detail["before"]
	for _, box := range boxes {
		if box.Wants == control.BoxDestroy {
			continue
		}
		d := store.BoxDecision{Action: "box.tier", Detail: detail}
		if another {
			d.Size = new(string)
		}
		if _, err := c.decide(ctx, actor, box, d); err != nil {
			return err
		}
	}
	return nil
}

// onBox runs do in a transaction that has locked the customer of a box.
func (s *Service) onBox(ctx context.Context, ref BoxRef, do func(*change, control.BoxDetail) error) error {
	box, err := s.Store.Box(ctx, ref.ID)
	if err != nil {
		return err
	}
	if ref.CustomerID != "" && box.CustomerID != ref.CustomerID {
		return fmt.Errorf("box %s of customer %s: %w", ref.ID, ref.CustomerID, control.ErrNotFound)
	}
	return s.locked(ctx, box.CustomerID, func(c *change) error {
		// Now that nobody else decides on it.
		d, err := c.tx.BoxDetail(ctx, ref.ID)
		if err != nil {
			return err
		}
		return do(c, d)
	})
}

// decideBox decides something about a box, and returns what it is then.
func (s *Service) decideBox(ctx context.Context, actor string, ref BoxRef, reason string,
	decide func(*change, control.BoxDetail) (store.BoxDecision, bool, error)) (control.BoxDetail, error) {
	var out control.BoxDetail
	err := s.onBox(ctx, ref, func(c *change, d control.BoxDetail) error {
		decision, needed, err := decide(c, d)
		if err != nil {
			return err
		}
		if needed {
			if reason != "" {
				decision.Detail = with(decision.Detail, "reason", reason)
			}
			if _, err := c.decide(ctx, actor, d.Box, decision); err != nil {
				return err
			}
		}
		if out, err = c.tx.BoxDetail(ctx, ref.ID); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, out)
	})
	return out, err
}

func with(detail map[string]any, key string, value any) map[string]any {
	if detail == nil {
		detail = make(map[string]any)
	}
	detail[key] = value
	return detail
}

// RestartBox has the gateway of a box start anew. One that is not to run is control.ErrInvalid.
func (s *Service) RestartBox(ctx context.Context, actor string, ref BoxRef, reason string) (control.BoxDetail, error) {
	d, err := s.decideBox(ctx, actor, ref, reason, func(_ *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		if d.Wants == control.BoxSuspend {
			return store.BoxDecision{}, false, fmt.Errorf("%w: box %s is suspended, and has nothing to restart", control.ErrInvalid, d.ID)
		}
		return store.BoxDecision{Action: "box.restart", Restart: true}, true, nil
	})
	if err != nil {
		return d, fmt.Errorf("restart box: %w", err)
	}
	return d, nil
}

// RotateBoxToken has a box get a new proxy token; the old ones end after a while.
func (s *Service) RotateBoxToken(ctx context.Context, actor string, ref BoxRef, reason string) (control.BoxDetail, error) {
	d, err := s.decideBox(ctx, actor, ref, reason, func(*change, control.BoxDetail) (store.BoxDecision, bool, error) {
		return store.BoxDecision{Action: "box.rotate_token", Rotate: true}, true, nil
	})
	if err != nil {
		return d, fmt.Errorf("rotate token of box: %w", err)
	}
	return d, nil
}

// SuspendBox has a box stop until ResumeBox, whatever is paid. All that it has is kept. It is about this
// box only: a customer that ends and buys again gets another one, unless it is suspended itself.
func (s *Service) SuspendBox(ctx context.Context, actor string, ref BoxRef, reason string) (control.BoxDetail, error) {
	hold := true
	d, err := s.decideBox(ctx, actor, ref, reason, func(_ *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		return store.BoxDecision{Action: "box.suspend", Wants: control.BoxSuspend, Hold: &hold}, !d.Held || d.Wants == control.BoxDestroy, nil
	})
	if err != nil {
		return d, fmt.Errorf("suspend box: %w", err)
	}
	return d, nil
}

// ResumeBox undoes SuspendBox. The box runs again if its customer is served and pays for it, or
// as soon as that is so.
func (s *Service) ResumeBox(ctx context.Context, actor string, ref BoxRef, reason string) (control.BoxDetail, error) {
	hold := false
	d, err := s.decideBox(ctx, actor, ref, reason, func(c *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		out := store.BoxDecision{Action: "box.resume", Wants: control.BoxSuspend, Hold: &hold}
		if !d.Held && d.Wants == control.BoxRun {
			return out, false, nil // whatever its customer is: nobody suspended it
		}
		paid, err := c.paid(ctx)
		if err != nil {
			return out, false, err
		}
		if paid && c.customer.Status == control.CustomerActive {
			out.Wants = control.BoxRun
		}
		return out, d.Held || d.Wants != out.Wants, nil
	})
	if err != nil {
		return d, fmt.Errorf("resume box: %w", err)
	}
	return d, nil
}

// DestroyBox revokes the tokens of a box and has all that is in the cluster of it removed, for
// ever. The customer's other boxes stay. With ErrUnpublished it is done, and the proxies will
// know a little later.
func (s *Service) DestroyBox(ctx context.Context, actor string, ref BoxRef, reason string) (control.BoxDetail, error) {
	d, err := s.decideBox(ctx, actor, ref, reason, func(c *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		err := s.revokeAll(ctx, c, actor, d.ID, "")
		return store.BoxDecision{Action: "box.destroy", Wants: control.BoxDestroy}, d.Wants != control.BoxDestroy, err
	})
	if err != nil {
		return d, fmt.Errorf("destroy box: %w", err)
	}
	return d, nil
}

// ResizeBox gives a box the resources of another tier than its customer has, or with "" of that
// one again. The customer's tier, which is what it pays for, stays; when it gets another
// one, its boxes have the resources of that one.
func (s *Service) ResizeBox(ctx context.Context, actor string, ref BoxRef, size, reason string) (control.BoxDetail, error) {
	d, err := s.decideBox(ctx, actor, ref, reason, func(c *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		if size != "" {
			if _, err := c.tiers.Get(size); err != nil {
				return store.BoxDecision{}, false, fmt.Errorf("%w: size: %w", control.ErrInvalid, err)
			}
		}
		if size == c.customer.Tier {
			size = ""
		}
		detail := map[string]any{"before_size": d.Size, "after_size": size}
		return store.BoxDecision{Action: "box.resize", Size: &size, Detail: detail}, d.Size != size || d.Wants == control.BoxDestroy, nil
	})
	if err != nil {
		return d, fmt.Errorf("resize box: %w", err)
	}
	return d, nil
}

// tokensOf lists the tokens of a box that are not revoked, oldest first. What was not published
// yet of those that are is published with the change.
func (c *change) tokensOf(ctx context.Context, boxID string) ([]control.ProxyToken, error) {
	tokens, err := c.tx.TokensOfBox(ctx, c.customer.ID, boxID)
	if err != nil {
		return nil, err
	}
	var out []control.ProxyToken
	var revoked []contract.Digest
	for _, t := range tokens {
		if t.Status == contract.StatusRevoked {
			revoked = append(revoked, t.Digest)
		} else {
			out = append(out, t)
		}
	}
	ids, err := c.tx.UnpublishedChanges(ctx, c.customer.ID, revoked...)
	c.outbox = append(c.outbox, ids...)
	return out, err
}

// revokeAll revokes the tokens of a box but one.
func (s *Service) revokeAll(ctx context.Context, c *change, actor, boxID, butTokenID string) error {
	tokens, err := c.tokensOf(ctx, boxID)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.ID == butTokenID {
			continue
		}
		if t, err = c.tx.UpdateToken(ctx, t.ID, contract.StatusRevoked, s.now()); err != nil {
			return err
		}
		if err := c.announce(ctx, t); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "token.revoke", CustomerID: c.customer.ID, Target: t.ID, Detail: map[string]any{"box": boxID},
		}); err != nil {
			return err
		}
	}
	return nil
}

// endLater has a token revoked at a time, unless it is earlier already.
func (s *Service) endLater(ctx context.Context, c *change, t control.ProxyToken, at time.Time) error {
	if !t.EndsAt.IsZero() && !t.EndsAt.After(at) {
		return nil
	}
	t, err := c.tx.EndToken(ctx, t.ID, at)
	if err != nil {
		return err
	}
	if err := c.announce(ctx, t); err != nil {
		return err
	}
	return s.Later.RevokeTokenAt(ctx, c.tx, t.ID, at)
}

// leaves has the operator of the boxes look at the box of a token that ends, which may be the one that
// the box runs with. If there is none beside it that stays, but the one that somebody got instead, the
// box gets another one.
func (c *change) leaves(ctx context.Context, actor string, t control.ProxyToken, insteadID string) error {
	d, err := c.tx.BoxDetail(ctx, t.BoxID)
	if err != nil || d.Wants == control.BoxDestroy {
		return err
	}
	tokens, err := c.tx.TokensOfBox(ctx, c.customer.ID, t.BoxID)
	if err != nil {
		return err
	}
	for _, other := range tokens {
		if other.ID != t.ID && other.ID != insteadID && other.Status != contract.StatusRevoked && other.EndsAt.IsZero() {
			return c.wake(ctx, c.tx, d.ID)
		}
	}
	_, err = c.decide(ctx, actor, d.Box, store.BoxDecision{Action: "box.rotate_token", Rotate: true, Detail: map[string]any{"ends": t.ID}})
	return err
}
