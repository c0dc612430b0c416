package onboarding

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Look returns a conversation as it is, after it has followed what became of the payment and the box. What
// was said last is its reply, so that it can be taken up again.
func (s *Service) Look(ctx context.Context, who Who) (Conversation, error) {
	v, err := s.find(ctx, who)
	if err != nil {
		return Conversation{}, err
	}
	m := &machine{tiers: s.o.Tiers.All(), s: v}
	last := m.reply()
	for i := len(v.History) - 1; i >= 0 && last.Text == ""; i-- {
		if v.History[i].Ours {
			last.Text = v.History[i].Text
		}
	}
	return s.follow(ctx, v, last, true)
}

// follow reads what the customer has by now, and returns the conversation with what is new. said is what was
// just said, or, with old, some time ago.
func (s *Service) follow(ctx context.Context, v Session, said Reply, old bool) (Conversation, error) {
	after, standing, news, err := s.observe(ctx, v)
	if err != nil {
		return Conversation{}, err
	}
	switch {
	case news.Text != "" && old:
		said = news
	case news.Text != "":
		said = joined(said, news)
	}
	return s.view(after, said, standing.Box), nil
}

// observe has a conversation follow what Postgres says of its customer. It is level-triggered: however
// often and late it is called, and whatever was missed, the conversation is then where it belongs.
func (s *Service) observe(ctx context.Context, v Session) (Session, Standing, Reply, error) {
	if !v.SignedUp || v.State.Final() && v.State != StateComplete {
		return v, Standing{}, Reply{}, nil
	}
	st, err := s.o.Platform.Standing(ctx, v.Customer)
	if err != nil || v.State.Final() {
		return v, st, Reply{}, err
	}
	in := Observed{Gone: st.Gone, Paid: st.Paid}
	if st.Box != nil {
		in.Box, in.State, in.HasBot = st.Box.ID, st.Box.State, st.Box.HasTelegramToken
		in.HasUsers = len(st.Box.Settings.TelegramUsers) > 0
	}
	// What was begun is done also if whoever looks goes away.
	until := time.Now().Add(effectsWithin)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end
	}
	working, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	after, reply, err := s.drive(working, v.ID, in, "")
	return after, st, reply, err
}

// Watch calls send with a conversation, and again whenever its state or its progress has changed, until it
// is final, send fails, or ctx ends, whose error it then returns. It looks that often.
func (s *Service) Watch(ctx context.Context, who Who, every time.Duration, send func(Conversation) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last Conversation
	for first := true; ; first = false {
		c, err := s.Look(ctx, who)
		if err != nil {
			return err
		}
		if first || c.State != last.State || len(c.History) != len(last.History) || !reflect.DeepEqual(c.Progress, last.Progress) {
			if err := send(c); err != nil {
				return err
			}
		}
		if c.Final {
			return nil
		}
		last = c
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// page is how many conversations are looked at, or forgotten, at a time.
const page = 200

// Sweep has all conversations that wait follow what became of the payment and the box, also of customers
// who have gone away, tells those on Telegram what is new, forgets what has expired, and invites those who have
// paid after that. It returns how many conversations it has looked at; one that cannot be looked at keeps no
// other from it.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	waiting, err := s.each(ctx, s.o.Sessions.WaitingOnboardings, s.sweep)
	errs := []error{err}
	for {
		gone, err := s.o.Sessions.ExpireOnboardings(ctx, s.now(), page)
		if errs = append(errs, err); err != nil || gone < page {
			break
		}
	}
	late, err := s.each(ctx, s.o.Sessions.PaidLateOnboardings, s.invite)
	return waiting + late, errors.Join(append(errs, err)...)
}

// each does something with all conversations of a list, page by page, and returns how many they are.
func (s *Service) each(ctx context.Context, list func(context.Context, string, time.Time, int) ([]control.OnboardingSession, error),
	do func(context.Context, control.OnboardingSession) error) (n int, _ error) {
	var errs []error
	for after := ""; ; {
		rows, err := list(ctx, after, s.now(), page)
		if err != nil {
			return n, errors.Join(append(errs, err)...)
		}
		for _, row := range rows {
			after = row.ID
			n++
			errs = append(errs, do(ctx, row))
		}
		if len(rows) < page {
			return n, errors.Join(errs...)
		}
	}
}

// invite mails somebody how to sign in who has paid when its conversation had expired: of its bot and of what it
// chose nothing is left, so that is for its dashboard. Once that is done nobody need know whose it was.
func (s *Service) invite(ctx context.Context, row control.OnboardingSession) error {
	if err := s.o.Platform.Invite(ctx, row.CustomerID); err != nil {
		return err
	}
	row.CustomerID = ""
	_, err := s.o.Sessions.SaveOnboarding(ctx, row)
	if errors.Is(err, control.ErrConflict) || errors.Is(err, control.ErrNotFound) { // somebody else was first
		return nil
	}
	return err
}

func (s *Service) sweep(ctx context.Context, row control.OnboardingSession) error {
	v, err := restored(row)
	if err != nil {
		return err
	}
	after, standing, news, err := s.observe(ctx, v)
	if errors.Is(err, control.ErrNotFound) { // it has just expired
		return nil
	}
	if err == nil && news.Text != "" && v.Channel == Telegram && s.o.Notify != nil {
		s.o.Notify(ctx, v.TelegramUser, s.view(after, news, standing.Box))
	}
	return err
}
