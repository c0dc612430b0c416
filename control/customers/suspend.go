package customers

import (
	"context"
	"errors"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// SuspendCustomer makes the proxies refuse all tokens of a customer, and cut their
// streams in flight, until ResumeCustomer. The tokens stay what they are. Suspending a
// customer again publishes it again. reason goes to the audit log and may be empty.
func (s *Service) SuspendCustomer(ctx context.Context, actor, customerID, reason string) (control.Customer, error) {
	c, err := s.setStatus(ctx, actor, customerID, control.CustomerSuspended, "customer.suspend", reason)
	if err != nil {
		return c, fmt.Errorf("suspend customer: %w", err)
	}
	return c, nil
}

// ResumeCustomer undoes SuspendCustomer. Boxes that were suspended because a payment was
// missing come back, unless it still is. Resuming a customer that is active publishes it again.
func (s *Service) ResumeCustomer(ctx context.Context, actor, customerID, reason string) (control.Customer, error) {
	c, err := s.setStatus(ctx, actor, customerID, control.CustomerActive, "customer.resume", reason)
	if err != nil {
		return c, fmt.Errorf("resume customer: %w", err)
	}
	return c, nil
}

// setStatus changes the status of a customer that is not cancelled, and with it the
// grants of its tokens.
func (s *Service) setStatus(ctx context.Context, actor, customerID string, status control.CustomerStatus, action, reason string) (control.Customer, error) {
	var out control.Customer
	err := s.change(ctx, customerID, func(c *change) error {
		before := c.customer.Status
		if before == control.CustomerCancelled {
			return fmt.Errorf("%w: customer %s is cancelled", control.ErrInvalid, customerID)
		}
		// Resumed later it would be served without ever having paid.
		if before == control.CustomerPending {
			return fmt.Errorf("%w: customer %s has not paid yet", control.ErrInvalid, customerID)
		}
		// What an operator says holds: no payment undoes it.
		if err := c.tx.SetPaymentHold(ctx, customerID, false); err != nil {
			return err
		}
		var err error
		if c.customer, err = c.tx.SetCustomerStatus(ctx, customerID, status, s.now()); err != nil {
			return err
		}
		out = c.customer
		if status == control.CustomerActive {
			if err := c.wakeBoxes(ctx, actor); err != nil {
				return err
			}
		}
		if err := c.announceAll(ctx, s.now()); err != nil {
			return err
		}
		detail := map[string]any{"before": before}
		if reason != "" {
			detail["reason"] = reason
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: action, CustomerID: customerID, Target: customerID, Detail: detail,
		}); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, out)
	})
	return out, err
}

// wakeBoxes has the customer's suspended boxes come back if it pays for them, or has no
// subscription at all.
func (c *change) wakeBoxes(ctx context.Context, actor string) error {
	paid, err := c.paid(ctx)
	if err != nil || !paid {
		return err
	}
	boxes, err := c.tx.Boxes(ctx, c.customer.ID)
	if err != nil {
		return err
	}
	return c.want(ctx, actor, boxes, control.BoxRun)
}

// paid reports whether the customer's boxes are paid for, or are an operator's gift.
func (c *change) paid(ctx context.Context) (bool, error) {
	v, err := c.tx.LiveSubscription(ctx, c.customer.ID)
	if errors.Is(err, control.ErrNotFound) { // an operator's customer
		return true, nil
	}
	return err == nil && entitled(v), err
}
