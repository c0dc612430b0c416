package control

import "strconv"

// The kinds of mail. Each is sent at most once per cause.
const (
	MailWelcome       = "welcome"        // it has paid for the first time; cause: the customer. Or again after its end; cause: the subscription
	MailAgentLive     = "agent_live"     // its box is ready; cause: the box
	MailNearLimit     = "near_limit"     // 90 % are used; cause: see LimitCause
	MailLimitReached  = "limit_reached"  // cause: see LimitCause
	MailPaymentFailed = "payment_failed" // cause: the invoice and which attempt it was
	MailSuspended     = "suspended"      // a payment is missing; cause: the invoice
	MailBack          = "back"           // it has paid after all; cause: the invoice
	MailCancelled     = "cancelled"      // cause: the subscription
	MailTrialEnding   = "trial_ending"   // cause: the subscription and when its trial ends
)

// MailKinds lists all kinds of mail.
func MailKinds() []string {
	return []string{
		MailWelcome, MailAgentLive, MailNearLimit, MailLimitReached, MailPaymentFailed, MailSuspended, MailBack,
		MailCancelled, MailTrialEnding,
	}
}

// LimitCause is the cause of mails on a period's limit: with another limit they are sent
// once more.
func LimitCause(p UsagePeriod) string { return p.ID + "/" + strconv.FormatInt(p.LimitTokens, 10) }
