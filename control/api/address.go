package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// evenFor is how long an answer takes that must not tell whether an account is there. The
// work for one that is takes less.
const evenFor = 300 * time.Millisecond

// ResetRequest is whose password was forgotten.
type ResetRequest struct {
	Email string `json:"email"`
}

// Reset is a new password with the secret that was mailed.
type Reset struct {
	Token string `json:"token" doc:"From the link of the mail. It is good once."`
	New   string `json:"new_password" doc:"12 characters at least, 256 bytes at most."`
}

// Confirmation is the secret that was mailed.
type Confirmation struct {
	Token string `json:"token" doc:"From the link of the mail. It is good once."`
}

func noMails() error { return fail(kindUnavailable(), "No mails are sent from here.") }

// addMail puts a mail into the outbox that says no more than the customer's name; nothing
// where mails are not set up.
func (a *API) addMail(ctx context.Context, tx *store.Tx, customer control.Customer, kind, cause string) error {
	if a.o.Mails == nil {
		return nil
	}
	_, err := a.o.Mails.AddMail(ctx, tx, control.Mail{
		CustomerID: customer.ID, Kind: kind, Cause: cause,
		Params: map[string]any{"name": customer.Name, "at": a.now().Format("2006-01-02 15:04")},
	})
	return err
}

// minute is the cause of mails that someone asks for: at most one a minute.
func (a *API) minute() string {
	return strconv.FormatInt(a.now().Truncate(time.Minute).Unix(), 10)
}

// passwordChanged tells a customer that its password is another one now. Whoever did not
// change it has to know.
func (a *API) passwordChanged(ctx context.Context, tx *store.Tx, id string) error {
	account, err := tx.Account(ctx, id)
	if err != nil {
		return err
	}
	return a.addMail(ctx, tx, account.Customer, control.MailPasswordChanged, strconv.FormatInt(a.now().UnixMicro(), 10))
}

// mayMail limits mails to an address of whoever asks for them.
func (a *API) mayMail(c *call, address string) error {
	at := time.Now()
	if wait, ok := a.mailsFrom.Take(callers.Subnet(c.address), at); !ok {
		return tooMany(wait, "Too many mails are asked for from this address.")
	}
	if wait, ok := a.mailsTo.Take(address, at); !ok {
		return tooMany(wait, "Too many mails are asked for to this address.")
	}
	return nil
}

// serveForgotten mails a link to set a new password. It answers the same, and as late,
// whether there is such an account or not: that is for its mailbox to know.
func (a *API) serveForgotten(c *call) (any, error) {
	var in ResetRequest
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	address, err := email(in.Email)
	if err != nil {
		return nil, err
	}
	if a.o.Mails == nil {
		return nil, noMails()
	}
	if err := a.mayMail(c, address); err != nil {
		return nil, err
	}
	even := time.NewTimer(evenFor)
	defer even.Stop()
	err = a.mailReset(c, address)
	select {
	case <-even.C:
	case <-c.ctx().Done():
		return nil, c.ctx().Err()
	}
	return nil, err
}

func (a *API) mailReset(c *call, address string) error {
	i, err := a.o.Store.Identity(c.ctx(), control.ProviderPassword, address)
	if errors.Is(err, control.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		account, err := tx.Account(c.ctx(), i.CustomerID)
		if err != nil {
			return err
		}
		if err := a.addMail(c.ctx(), tx, account.Customer, control.MailResetPassword, a.minute()); err != nil {
			return err
		}
		return tx.AddAudit(c.ctx(), control.Audit{
			Actor: "anonymous", Action: "password.forgotten", CustomerID: i.CustomerID, Target: i.CustomerID,
			Detail: map[string]any{"address": c.address.String(), "request_id": c.id},
		})
	})
}

// mailed reads a token that was mailed and is good, without using it.
func (a *API) mailed(c *call, kind, secret string) (control.MailToken, error) {
	if wait, ok := a.guessAddress.Take(callers.Subnet(c.address), time.Now()); !ok {
		return control.MailToken{}, tooMany(wait, "Too many attempts from this address.")
	}
	if !isSecret(secret, control.MailTokenPrefix) {
		return control.MailToken{}, a.badLink(c, kind, nil)
	}
	t, err := a.o.Store.MailToken(c.ctx(), kind, control.MailTokenDigest(secret), a.now())
	if errors.Is(err, control.ErrNotFound) {
		err = a.badLink(c, kind, err)
	}
	return t, err
}

// badLink refuses a token that was never mailed, was used, has expired or was replaced.
func (a *API) badLink(c *call, kind string, cause error) error {
	a.noteRefusal(c, "mail_token.refused", kind, nil)
	return &failure{kind: kindInvalid(), detail: "The link is not good any more: ask for another one.", fields: map[string]string{"token": "it is used, too old or replaced"}, cause: cause} // #nosec G101 -- words about a token, not one
}

func (a *API) serveReset(c *call) (any, error) {
	var in Reset
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	t, err := a.mailed(c, control.MailResetPassword, in.Token)
	if err != nil {
		return nil, err
	}
	if err := CheckPassword(in.New, t.Address); err != nil {
		return nil, newPassword(err) // and the link stays good
	}
	hash, err := a.passwords.hash(c.ctx(), in.New)
	if err != nil {
		return nil, err
	}
	err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		if _, err := tx.UseMailToken(c.ctx(), t.Kind, t.Digest, a.now()); err != nil {
			return err
		}
		actor := "customer:" + t.CustomerID
		// Whoever reads the mailbox has shown that, too.
		if err := tx.ConfirmAddress(c.ctx(), actor, t.CustomerID, t.Address, a.now()); err != nil {
			return err
		}
		if err := tx.SetPassword(c.ctx(), actor, t.CustomerID, hash, a.now()); err != nil {
			return err
		}
		// Whoever was in, or signed up by this address before its owner, may have made some.
		if _, err := tx.RevokeAPIKeys(c.ctx(), actor, t.CustomerID, "password forgotten", a.now()); err != nil {
			return err
		}
		return a.passwordChanged(c.ctx(), tx, t.CustomerID)
	})
	if errors.Is(err, control.ErrNotFound) { // someone else was faster
		err = a.badLink(c, t.Kind, err)
	}
	// It signs nobody in, and whoever is signed in here by a session of before is out.
	return nil, err
}

// newPassword says what is wrong with a password in the field where it was.
func newPassword(err error) error {
	if f := (*failure)(nil); errors.As(err, &f) {
		return invalid("new_password", strings.TrimPrefix(f.detail, "password: "))
	}
	return err
}

func (a *API) serveConfirm(c *call) (any, error) {
	var in Confirmation
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	t, err := a.mailed(c, control.MailVerifyEmail, in.Token)
	if err != nil {
		return nil, err
	}
	err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		if _, err := tx.UseMailToken(c.ctx(), t.Kind, t.Digest, a.now()); err != nil {
			return err
		}
		return tx.ConfirmAddress(c.ctx(), "customer:"+t.CustomerID, t.CustomerID, t.Address, a.now())
	})
	if errors.Is(err, control.ErrNotFound) {
		err = a.badLink(c, t.Kind, err)
	}
	return nil, err
}

// serveMailAgain mails the link that confirms the caller's address once more.
func (a *API) serveMailAgain(c *call) (any, error) {
	if a.o.Mails == nil {
		return nil, noMails()
	}
	if err := a.mayMail(c, c.actor()); err != nil {
		return nil, err
	}
	return nil, a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		confirmed, err := tx.AddressConfirmed(c.ctx(), c.customerID())
		if err != nil || confirmed {
			return err
		}
		account, err := tx.Account(c.ctx(), c.customerID())
		if err != nil {
			return err
		}
		return a.addMail(c.ctx(), tx, account.Customer, control.MailVerifyEmail, a.minute())
	})
}

func (a *API) addressRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/password-reset", who: anyone(), serve: a.serveForgotten,
			op: operation{id: "requestPasswordReset", tag: "session", summary: "Mail a link to set a new password", body: ResetRequest{}, status: http.StatusAccepted,
				about: "The answer is the same whether there is such an account or not. One mail a minute at most."}},
		{method: http.MethodPost, path: "/v1/password-reset/confirm", who: anyone(), serve: a.serveReset,
			op: operation{id: "resetPassword", tag: "session", summary: "Set a new password with a mailed link", body: Reset{}, status: http.StatusNoContent,
				about: "Ends all sessions, revokes all API keys, and signs nobody in. The link is good once, for an hour."}},
		{method: http.MethodPost, path: "/v1/verify-email", who: anyone(), serve: a.serveConfirm,
			op: operation{id: "verifyEmail", tag: "session", summary: "Confirm an e-mail address with a mailed link", body: Confirmation{}, status: http.StatusNoContent,
				about: "The link is good once, for three days."}},
		{method: http.MethodPost, path: "/v1/me/verify-email", who: customerSession(), serve: a.serveMailAgain, withoutKey: true,
			op: operation{id: "mailVerification", tag: "me", summary: "Mail the link that confirms your address again", status: http.StatusAccepted,
				about: "Nothing is mailed once it is confirmed. One mail a minute at most."}},
	}
}
