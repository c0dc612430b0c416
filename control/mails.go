package control

import (
	"crypto/rand"
	"crypto/sha256"
	"strconv"
	"time"
)

// The kinds of mail. Each is sent at most once per cause.
const (
	MailWelcome       = "welcome"         // it has paid for the first time; cause: the customer. Or again after its end; cause: the subscription
	MailNearLimit     = "near_limit"      // 90 % are used, and not all; cause: see LimitCause
	MailLimitReached  = "limit_reached"   // nearly all are used, so that requests are refused; cause: see LimitCause
	MailPaymentFailed = "payment_failed"  // cause: the invoice and which attempt it was
	MailSuspended     = "suspended"       // a payment is missing; cause: the invoice
	MailBack          = "back"            // it has paid after all; cause: the invoice
	MailCancelled     = "cancelled"       // cause: the subscription
	MailTrialEnding   = "trial_ending"    // cause: the subscription and when its trial ends
	MailAgentLive     = "agent_live"      // a box is active for the first time; cause: the box
	MailAgentDown     = "agent_unhealthy" // a box that should be ready is not; cause: the box and the day

	MailVerifyEmail     = "verify_email"     // has a MailToken; cause: the customer, or when it was asked for again
	MailResetPassword   = "reset_password"   // has a MailToken; cause: when it was asked for
	MailPasswordChanged = "password_changed" // cause: when
)

// MailKinds lists all kinds of mail.
func MailKinds() []string {
	return []string{
		MailWelcome, MailNearLimit, MailLimitReached, MailPaymentFailed, MailSuspended, MailBack,
		MailCancelled, MailTrialEnding, MailAgentLive, MailAgentDown, MailVerifyEmail, MailResetPassword, MailPasswordChanged,
	}
}

// MailToken is what is kept of a secret that a mail has, good once: never the secret itself.
// It is made when the mail is sent, so that the secret is in no row and no queue.
type MailToken struct {
	CustomerID string
	Kind       string // of the mail
	Digest     [32]byte
	Address    string // that it is mailed to
	CreatedAt  time.Time
	ExpiresAt  time.Time
}

// MailTokenPrefix is what the secrets of mails begin with.
const MailTokenPrefix = "ocm_"

// NewMailToken returns a secret for a mail, and what is to be kept of it. The kind must be
// one that has a MailToken.
func NewMailToken(customerID, kind, address string, now time.Time) (secret string, t MailToken) {
	secret = MailTokenPrefix + rand.Text() + rand.Text()
	return secret, MailToken{
		CustomerID: customerID, Kind: kind, Address: address, Digest: MailTokenDigest(secret),
		CreatedAt: now, ExpiresAt: now.Add(MailTokenFor(kind)),
	}
}

// MailTokenDigest returns what is kept of a secret. A plain hash is enough: the secret has
// 260 random bits, which nobody guesses one by one.
func MailTokenDigest(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// MailTokenFor returns for how long the secret of a mail is good; 0 for kinds without one.
func MailTokenFor(kind string) time.Duration {
	switch kind {
	case MailVerifyEmail:
		return 72 * time.Hour
	case MailResetPassword:
		return time.Hour
	}
	return 0
}

// LimitCause is the cause of mails on a period's limit: with another limit they are sent
// once more.
func LimitCause(p UsagePeriod) string { return p.ID + "/" + strconv.FormatInt(p.LimitTokens, 10) }
