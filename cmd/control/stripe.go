package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	controlmail "github.com/andreabadesso/openclaw-cloud/control/mail"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	inboxEvery   = 5 * time.Second  // how often its metrics are updated
	mailsEvery   = 15 * time.Second // how often mails are looked for that failed before
	overdueEvery = 5 * time.Second  // how often subscriptions whose period is over are
)

// stripeSettings are the knobs of billing by Stripe and of mails. Without a key there is no
// Stripe, without a host no mail goes out.
type stripeSettings struct {
	key          secretFlag
	url          string
	every        time.Duration
	lease        time.Duration
	overageEvery time.Duration
	limitsEvery  time.Duration

	host, username, tls, from, dashboard string
	password                             secretFlag
	port                                 int
}

func (s *stripeSettings) flags(f *pflag.FlagSet) {
	s.key.flags(f, "stripe-secret-key", "secret key of the Stripe account; without it no subscriptions are looked after")
	f.StringVar(&s.url, "stripe-url", "", "where Stripe's API is, for tests")
	f.DurationVar(&s.every, "stripe-events-every", 250*time.Millisecond, "how often to look for events of Stripe that wait")
	f.DurationVar(&s.lease, "stripe-events-lease", 2*time.Minute, "how long an event, or a report of what was used above a limit, may be in hand before the worker that has it is taken for dead; longer than Stripe may take to answer")
	f.DurationVar(&s.overageEvery, "report-overage-every", time.Minute, "how often to report what was used above limits to Stripe")
	f.DurationVar(&s.limitsEvery, "limit-mails-every", 15*time.Second, "how often to look for customers who have used most of their limit, and mail them")
	f.StringVar(&s.host, "smtp-host", "", "SMTP server; without it mails are kept in Postgres until a billing-worker has one")
	f.IntVar(&s.port, "smtp-port", 587, "port of the SMTP server")
	f.StringVar(&s.username, "smtp-username", "", "whom to sign in as at the SMTP server; nobody without it")
	s.password.flags(f, "smtp-password", "password at the SMTP server")
	f.StringVar(&s.tls, "smtp-tls", string(controlmail.StartTLS), "starttls, implicit (as on port 465), or none for a server on this machine")
	f.StringVar(&s.from, "mail-from", "", "address that mails come from, such as \"OpenClaw <billing@example.com>\"")
	f.StringVar(&s.dashboard, "dashboard-url", "", "the customers' pages, which mails lead to")
}

func (s *stripeSettings) validate() error {
	errs := []error{positive("stripe-events-every", s.every), positive("stripe-events-lease", s.lease), positive("report-overage-every", s.overageEvery), positive("limit-mails-every", s.limitsEvery),
		s.key.stripeKey(), s.password.read()}
	if s.host != "" {
		if _, err := mail.ParseAddress(s.from); err != nil {
			errs = append(errs, fmt.Errorf("--mail-from %q: write an address such as \"OpenClaw <billing@example.com>\"", s.from))
		}
		if s.dashboard == "" {
			errs = append(errs, errors.New("--dashboard-url is required with --smtp-host"))
		}
		if t := controlmail.TLS(s.tls); t != controlmail.StartTLS && t != controlmail.ImplicitTLS && t != controlmail.NoTLS {
			errs = append(errs, fmt.Errorf("--smtp-tls %q: use starttls, implicit or none", s.tls))
		}
	}
	return errors.Join(errs...)
}

// start has the work done that s asks for, until ctx ends. The caller calls done after it.
func (s *stripeSettings) start(ctx context.Context, work *errgroup.Group, service *customers.Service, registry prometheus.Registerer, log *slog.Logger) (done func(), err error) {
	done = func() {}
	handlers := &jobs.Handlers{Retention: true}
	if s.host != "" {
		sender, err := s.sender(service.Store, registry, log)
		if err != nil {
			return done, err
		}
		handlers.SendMails = sender.SendDue
		// A mail that failed has no job any more that waits for it.
		work.Go(func() error {
			every(ctx, mailsEvery, log, "send mails", func(ctx context.Context) (int, error) {
				return 0, errors.Join(sender.SendDue(ctx), sender.Observe(ctx))
			})
			return nil
		})
	}
	queue, err := openJobs(ctx, service.Store, log, handlers)
	if err != nil {
		return done, atStart(ctx, err)
	}
	done = queue.Close
	if err := queue.Start(context.WithoutCancel(ctx)); err != nil {
		return done, err
	}
	work.Go(func() error {
		<-ctx.Done()
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return queue.Stop(finish)
	})
	if s.key.Text == "" && s.host == "" {
		return done, nil // nobody is mailed, and nobody pays
	}
	notices := &controlmail.LimitNotices{Store: service.Store, Add: queue.AddMail}
	work.Go(func() error {
		every(ctx, s.limitsEvery, log, "add mails about limits", notices.Notify)
		return nil
	})
	if s.key.Text == "" {
		return done, nil
	}
	return done, s.subscriptions(ctx, work, service, queue, registry, log)
}

func (s *stripeSettings) sender(st *store.Store, registry prometheus.Registerer, log *slog.Logger) (*controlmail.Sender, error) {
	return controlmail.NewSender(st, controlmail.Options{
		Host: s.host, Port: s.port, Username: s.username, Password: s.password.Reveal(), TLS: controlmail.TLS(s.tls),
		From: s.from, Dashboard: s.dashboard, Logger: log, Registerer: registry,
	})
}

// subscriptions works Stripe's events and reports overage.
func (s *stripeSettings) subscriptions(ctx context.Context, work *errgroup.Group, service *customers.Service, mails stripe.Mailer, registry prometheus.Registerer, log *slog.Logger) error {
	account, err := stripe.NewAccount(s.key.Reveal(), s.url)
	if err != nil {
		return err
	}
	processor, err := stripe.NewProcessor(stripe.ProcessorOptions{Account: account, Customers: service, Mails: mails, Lease: s.lease, Logger: log, Registerer: registry})
	if err != nil {
		return err
	}
	meter := &stripe.Meter{Account: account, Customers: service, Lease: s.lease}
	for what, job := range map[string]struct {
		interval time.Duration
		do       func(context.Context) (int, error)
	}{
		"process events of Stripe":                {s.every, processor.ProcessDue},
		"renew subscriptions":                     {overdueEvery, processor.SyncOverdue},
		"report overage to Stripe":                {s.overageEvery, meter.ReportDue},
		"read what waits for Stripe, and from it": {inboxEvery, func(ctx context.Context) (int, error) { return 0, processor.Observe(ctx) }},
	} {
		work.Go(func() error {
			every(ctx, job.interval, log, what, job.do)
			return nil
		})
	}
	return nil
}
