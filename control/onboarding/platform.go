package onboarding

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// NewCustomer is who signs up.
type NewCustomer struct {
	ID       string
	Name     string
	Email    string
	Tier     string // what it wants to buy; it entitles to nothing
	Language control.Language
}

// Standing is what a customer has.
type Standing struct {
	Gone bool // it was deleted
	Paid bool
	Box  *control.BoxDetail // nil if there is none
}

// Platform is what a conversation has done. Each method may be called again with the same, and then
// changes nothing more.
type Platform interface {
	// SignUp makes a customer that has not paid. An address that another one has is control.ErrExists.
	SignUp(ctx context.Context, c NewCustomer) error
	// CheckoutURL returns the page on which a customer pays for a tier, and which leads back to where the
	// conversation is; its errors are those of stripe.Checkout.
	CheckoutURL(ctx context.Context, customerID, tier string, back Channel) (string, error)
	// Standing reads what a customer has; one that is not there is Gone.
	Standing(ctx context.Context, customerID string) (Standing, error)
	// BotTaken reports whether a box has the bot of a token.
	BotTaken(ctx context.Context, token secret.Text) (bool, error)
	// HandOver gives a customer's box what was chosen, and its bot, unless token is "". A bot that it cannot
	// have is ErrBotRefused, and another setting a *customers.SettingsError.
	HandOver(ctx context.Context, customerID, boxID string, chosen control.BoxSettings, token secret.Text) error
	// Invite mails a customer how to sign in, once, as HandOver does.
	Invite(ctx context.Context, customerID string) error
	// Retry has a customer's box tried again.
	Retry(ctx context.Context, customerID, boxID string) error
}

// Checkout makes pages to pay on; see stripe.Checkout.
type Checkout interface {
	CheckoutURL(ctx context.Context, customerID, tier string) (string, error)
}

// Mailer puts mails into the outbox; see jobs.Jobs.
type Mailer interface {
	AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (bool, error)
}

// Control is the Platform of the control plane.
type Control struct {
	Customers *customers.Service // with its Store, Seals and Hasher
	Checkout  Checkout           // nil: nothing can be bought
	// FromTelegram makes the pages that lead back to Telegram; nil: they lead to where those of Checkout do.
	FromTelegram Checkout
	Mails        Mailer // nil: nobody is mailed how to sign in
	// HashPassword makes the secret of an identity; see api.HashPassword. Nobody knows the password: the
	// customer chooses one by a link that is mailed to it.
	HashPassword func(password string) string

	hashing sync.Mutex // one at a time: each takes memory, and strangers have it done
}

var _ Platform = (*Control)(nil)

// actor is who the audit log says it was.
func actor(customerID string) string { return "customer:" + customerID }

// SignUp makes a customer with the id that the conversation has chosen: if it has that already, it is the
// same one.
func (p *Control) SignUp(ctx context.Context, c NewCustomer) error {
	now := p.Customers.Clock()
	account := control.Account{
		Customer: control.Customer{ID: c.ID, Name: c.Name, Email: c.Email, Tier: c.Tier, Status: control.CustomerPending, CreatedAt: now},
		Language: c.Language,
	}
	if there, err := p.Customers.Store.Account(ctx, c.ID); err == nil {
		return same(there, c)
	} else if !errors.Is(err, control.ErrNotFound) {
		return err
	}
	err := p.Customers.Store.SignUp(ctx, account, control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: c.ID, Provider: control.ProviderPassword, Subject: c.Email,
		SecretHash: p.hash(rand.Text() + rand.Text()), CreatedAt: now,
	})
	if errors.Is(err, control.ErrExists) {
		if there, readErr := p.Customers.Store.Account(ctx, c.ID); readErr == nil {
			return same(there, c) // somebody was faster with the same
		}
	}
	return err
}

func (p *Control) hash(password string) string {
	p.hashing.Lock()
	defer p.hashing.Unlock()
	return p.HashPassword(password)
}

// same reports whether a customer is the one that signs up.
func same(there control.Account, c NewCustomer) error {
	if !there.DeletedAt.IsZero() || !strings.EqualFold(there.Email, c.Email) {
		return fmt.Errorf("sign up: customer %s: %w", c.ID, control.ErrExists)
	}
	return nil
}

// CheckoutURL is that of the Checkout.
func (p *Control) CheckoutURL(ctx context.Context, customerID, tier string, back Channel) (string, error) {
	if p.Checkout == nil {
		return "", fmt.Errorf("checkout of customer %s: %w: payments are not set up", customerID, control.ErrUnavailable)
	}
	if back == Telegram && p.FromTelegram != nil {
		return p.FromTelegram.CheckoutURL(ctx, customerID, tier)
	}
	return p.Checkout.CheckoutURL(ctx, customerID, tier)
}

// Standing reads within the customer's own rows.
func (p *Control) Standing(ctx context.Context, customerID string) (out Standing, err error) {
	err = p.Customers.Store.ForCustomer(ctx, customerID, func(tx *store.Tx) error {
		a, err := tx.Account(ctx, customerID)
		if errors.Is(err, control.ErrNotFound) || err == nil && !a.DeletedAt.IsZero() {
			out.Gone = true
			return nil
		}
		if err != nil {
			return err
		}
		out.Paid = a.Status == control.CustomerActive
		boxes, err := tx.BoxDetails(ctx, customerID)
		for i := range boxes {
			if boxes[i].Wants != control.BoxDestroy {
				out.Box = &boxes[i]
				break
			}
		}
		return err
	})
	if err != nil {
		return Standing{}, fmt.Errorf("standing of customer %s: %w", customerID, err)
	}
	return out, nil
}

// BotTaken asks all boxes.
func (p *Control) BotTaken(ctx context.Context, token secret.Text) (bool, error) {
	return p.Customers.BotTaken(ctx, token)
}

// HandOver gives the bot last: then the box can run. Whoever has a box is mailed how to sign in, once.
func (p *Control) HandOver(ctx context.Context, customerID, boxID string, chosen control.BoxSettings, token secret.Text) error {
	ref := customers.BoxRef{ID: boxID, CustomerID: customerID}
	change := customers.BoxSettingsChange{Language: &chosen.Language, TimeZone: &chosen.TimeZone}
	if chosen.TelegramUsers != nil {
		change.TelegramUsers = &chosen.TelegramUsers
	}
	if _, err := p.Customers.UpdateBoxSettings(ctx, actor(customerID), ref, change); err != nil {
		return fmt.Errorf("hand over to box %s: %w", boxID, err)
	}
	if token != "" {
		_, err := p.Customers.SetTelegramToken(ctx, actor(customerID), ref, token)
		if wrong := (*customers.SettingsError)(nil); errors.As(err, &wrong) && wrong.Field == "token" {
			return fmt.Errorf("hand over to box %s: %w: %s", boxID, ErrBotRefused, wrong.Reason)
		}
		if err != nil {
			return fmt.Errorf("hand over to box %s: %w", boxID, err)
		}
	}
	if err := p.Invite(ctx, customerID); err != nil {
		return fmt.Errorf("hand over to box %s: %w", boxID, err)
	}
	return nil
}

// Invite mails the link by which a password is chosen.
func (p *Control) Invite(ctx context.Context, customerID string) error {
	if p.Mails == nil {
		return nil
	}
	err := p.Customers.Store.InTx(ctx, func(tx *store.Tx) error {
		_, err := p.Mails.AddMail(ctx, tx, control.Mail{CustomerID: customerID, Kind: control.MailResetPassword, Cause: "onboarding"})
		return err
	})
	if err != nil {
		return fmt.Errorf("invite customer %s: %w", customerID, err)
	}
	return nil
}

// Retry starts the box anew.
func (p *Control) Retry(ctx context.Context, customerID, boxID string) error {
	_, err := p.Customers.RestartBox(ctx, actor(customerID), customers.BoxRef{ID: boxID, CustomerID: customerID}, "asked for in the conversation")
	return err
}

// stepOf is one step of how a box is made, for whoever waits for it.
func stepOf(b control.BoxStep) Progress {
	return Progress{Name: b.Name, StartedAt: b.StartedAt, FinishedAt: b.FinishedAt, Trouble: b.Error}
}

// Progress is one step of how a box is made.
type Progress struct {
	Name       string    `json:"name"` // the operator's, such as namespace or gateway
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Trouble    string    `json:"trouble,omitempty"` // why it is tried again
}
