package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	gomail "github.com/wneessen/go-mail"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// claimed at once. Of a sender that dies it is not known whether what it had claimed went
	// out, and so it is never sent again: the fewer the better.
	claimed    = 1
	attempts   = 12 // then a mail is given up
	retryFirst = 30 * time.Second
	retryMax   = 6 * time.Hour
)

// TLS says how the connection to the SMTP server is protected.
type TLS string

// The ways.
const (
	StartTLS    TLS = "starttls" // required; the default
	ImplicitTLS TLS = "implicit" // from the first byte, as on port 465
	NoTLS       TLS = "none"     // for a server on the same machine
)

// Options are where mails go and what they say of us.
type Options struct {
	Host               string
	Port               int
	Username, Password string // "" without signing in
	TLS                TLS
	// TLSConfig is nil but in tests.
	TLSConfig *tls.Config
	From      string // an address, with or without a name
	Dashboard string // URL of the customers' pages, for links
	// Timeout bounds one exchange with the server. Default 15 s.
	Timeout time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Sender sends mails. It is safe for concurrent use.
type Sender struct {
	store     *store.Store
	o         Options
	client    []gomail.Option
	domain    string
	templates templates
	sent      *prometheus.CounterVec
	uncertain prometheus.Gauge
}

// NewSender checks o, and that there is a template for every mail.
func NewSender(st *store.Store, o Options) (*Sender, error) {
	from, err := netmail.ParseAddress(o.From)
	if err != nil {
		return nil, fmt.Errorf("mail: sender %q: %w", o.From, err)
	}
	if o.Host == "" || o.Port <= 0 || o.Port > 65535 {
		return nil, errors.New("mail: host and port of an SMTP server are required")
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Sender{store: st, o: o, domain: from.Address[strings.LastIndexByte(from.Address, '@')+1:]}
	// NOOP and RSET around one mail tell nothing, and can fail after it was taken.
	s.client = []gomail.Option{gomail.WithPort(o.Port), gomail.WithTimeout(o.Timeout), gomail.WithoutNoop(), gomail.WithoutRset()}
	switch o.TLS {
	case StartTLS, "":
		s.client = append(s.client, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case ImplicitTLS:
		s.client = append(s.client, gomail.WithSSL())
	case NoTLS:
		if o.Password != "" {
			return nil, errors.New("mail: a password is never sent without TLS")
		}
		s.client = append(s.client, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("mail: TLS %q: want %s, %s or %s", o.TLS, StartTLS, ImplicitTLS, NoTLS)
	}
	if o.TLSConfig != nil {
		s.client = append(s.client, gomail.WithTLSConfig(o.TLSConfig))
	}
	if o.Username != "" {
		s.client = append(s.client, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(o.Username), gomail.WithPassword(o.Password))
	}
	if s.templates, err = parseTemplates(); err != nil {
		return nil, err
	}
	s.sent = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "billing_mails_total",
		Help: "Mails by what became of them: sent, retried, given_up, or uncertain (the server did not say whether it took it; it is not sent again).",
	}, []string{"result"})
	for _, result := range []string{"sent", "retried", "given_up", "uncertain"} {
		s.sent.WithLabelValues(result)
	}
	s.uncertain = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "billing_mails_uncertain",
		Help: "Mails of which it is not known whether they went out, because the server did not say or the sender died. They are not sent again; someone may tell those customers otherwise.",
	})
	if o.Registerer != nil {
		if err := errors.Join(o.Registerer.Register(s.sent), o.Registerer.Register(s.uncertain)); err != nil {
			return nil, fmt.Errorf("mail: register metrics: %w", err)
		}
	}
	return s, nil
}

const (
	// uncertainAfter is longer than any attempt takes.
	uncertainAfter = 5 * time.Minute
	uncertainMax   = 1000
)

// Observe sets the metric of mails of which it is not known whether they went out, counted
// up to 1000.
func (s *Sender) Observe(ctx context.Context) error {
	list, err := s.store.UncertainMails(ctx, uncertainAfter, uncertainMax)
	if err != nil {
		return err
	}
	s.uncertain.Set(float64(len(list)))
	return nil
}

// SendDue sends the mails that are due. Any number of processes may call it. The error
// tells of the first mail that failed; it is tried again by itself.
func (s *Sender) SendDue(ctx context.Context) error {
	var first error
	for ctx.Err() == nil {
		list, err := s.store.ClaimMails(ctx, claimed)
		if err != nil || len(list) == 0 {
			return errors.Join(first, err)
		}
		for _, m := range list {
			if err := s.send(ctx, m); err != nil && first == nil {
				first = fmt.Errorf("send mail %d (%s): %w", m.ID, m.Kind, err)
			}
		}
	}
	return first
}

// outcome is what became of an attempt.
type outcome string

const (
	sent      outcome = "sent"
	retried   outcome = "retried"
	givenUp   outcome = "given_up"
	uncertain outcome = "uncertain"
)

func (s *Sender) send(ctx context.Context, m control.Mail) error {
	result, err := s.try(ctx, m)
	if result == retried && m.Attempts >= attempts {
		result = givenUp
	}
	s.sent.WithLabelValues(string(result)).Inc()
	// What became of it is noted also while the process is being stopped.
	note, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	switch result {
	case sent:
		return s.store.MailSent(note, m.ID)
	case uncertain:
		s.o.Logger.ErrorContext(ctx, "it is not known whether a mail went out; it is not sent again", "mail", m.ID, "kind", m.Kind, "error", err)
		return nil
	case givenUp:
		s.o.Logger.ErrorContext(ctx, "a mail is given up", "mail", m.ID, "kind", m.Kind, "customer", m.CustomerID, "error", err)
	}
	after := min(retryFirst<<min(max(m.Attempts-1, 0), 20), retryMax)
	return errors.Join(err, s.store.MailFailed(note, m.ID, err.Error(), result == retried, after))
}

// try sends one mail, in a connection of its own: mails are few.
func (s *Sender) try(ctx context.Context, m control.Mail) (outcome, error) {
	if ctx.Err() != nil {
		return retried, ctx.Err()
	}
	m, err := s.withLink(ctx, m)
	switch {
	case errors.Is(err, control.ErrNotFound): // it does not sign in by that address any more
		return givenUp, err
	case err != nil:
		return retried, err
	}
	msg, err := s.message(m)
	if err != nil {
		return givenUp, err
	}
	client, err := gomail.NewClient(s.o.Host, s.client...)
	if err != nil {
		return retried, err
	}
	err = client.DialAndSendWithContext(ctx, msg)
	if err == nil || msg.IsDelivered() {
		return sent, nil // whatever went wrong with saying goodbye
	}
	var failed *gomail.SendError
	if !errors.As(err, &failed) {
		return retried, err
	}
	// Not the server's own words: they repeat the address.
	err = fmt.Errorf("%s: the server answers %d", failed.Reason, failed.ErrorCode())
	switch {
	case failed.ErrorCode() == 0 && (failed.Reason == gomail.ErrSMTPDataClose || failed.Reason == gomail.ErrAmbiguous):
		return uncertain, err
	case failed.ErrorCode() >= 500:
		return givenUp, err
	}
	return retried, err
}

func (s *Sender) message(m control.Mail) (*gomail.Msg, error) {
	if m.To == "" {
		return nil, errors.New("the customer has no address any more")
	}
	text, err := s.templates.render(m, s.o.Dashboard)
	if err != nil {
		return nil, err
	}
	msg := gomail.NewMsg()
	if err := errors.Join(msg.From(s.o.From), msg.To(m.To)); err != nil {
		return nil, errors.New("the address of the customer, or ours, is none")
	}
	msg.Subject(text.Subject)
	msg.SetMessageIDWithValue(fmt.Sprintf("mail-%d.%d@%s", m.ID, m.CreatedAt.UnixMicro(), s.domain))
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(gomail.TypeTextPlain, text.Body)
	return msg, nil
}
