package onboarding

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Sessions keeps conversations; see store.Store.
type Sessions interface {
	InsertOnboarding(ctx context.Context, v control.OnboardingSession) error
	Onboarding(ctx context.Context, id string, now time.Time) (control.OnboardingSession, error)
	OnboardingByKey(ctx context.Context, digest [32]byte, now time.Time) (control.OnboardingSession, error)
	ForgetOnboardingKey(ctx context.Context, digest [32]byte) error
	OnboardingOfTelegram(ctx context.Context, user int64, now time.Time) (control.OnboardingSession, error)
	SaveOnboarding(ctx context.Context, v control.OnboardingSession) (control.OnboardingSession, error)
	WaitingOnboardings(ctx context.Context, after string, now time.Time, limit int) ([]control.OnboardingSession, error)
	PaidLateOnboardings(ctx context.Context, after string, now time.Time, limit int) ([]control.OnboardingSession, error)
	ExpireOnboardings(ctx context.Context, then time.Time, limit int) (int64, error)
}

// Options are what a Service needs.
type Options struct {
	Sessions Sessions
	Platform Platform
	Tiers    control.Tiers // those on sale
	Seals    *secret.Keys
	Bots     BotChecker
	Model    Model // nil: the conversation goes in prepared sentences
	// ModelWithin is how long the model may take. Defaults to 8 s.
	ModelWithin time.Duration
	// Notify tells somebody on Telegram what nobody asked for, such as that the agent runs; nil for nobody.
	Notify func(ctx context.Context, telegramUser int64, c Conversation)
	Logger *slog.Logger
	Now    func() time.Time // time.Now outside of tests
}

// Service has conversations. It is safe for concurrent use, and any number of processes may have one.
type Service struct {
	o    Options
	rest rest
}

// New checks o.
func New(o Options) (*Service, error) {
	if o.Sessions == nil || o.Platform == nil || o.Seals == nil || o.Bots == nil || o.Logger == nil || len(o.Tiers.All()) == 0 {
		return nil, errors.New("onboarding: sessions, a platform, tiers, seals, a check of bots and a logger are required")
	}
	if o.ModelWithin <= 0 {
		o.ModelWithin = 8 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Service{o: o}, nil
}

func (s *Service) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// Who says which conversation is meant: one of both.
type Who struct {
	Key          string // of the browser's cookie
	TelegramUser int64
}

// Said is what the customer did.
type Said struct {
	Text   string
	Choice string // id of a quick reply; then Text does not count
	// Hurried says that more has come already, for which others wait: no model is asked about this.
	Hurried bool
}

// Conversation is a conversation as its customer may see it.
type Conversation struct {
	State    State            `json:"state"`
	Final    bool             `json:"final"`
	Language control.Language `json:"language"`
	Reply    Reply            `json:"reply"` // what is new, and how to go on
	History  []Turn           `json:"history"`
	Progress []Progress       `json:"progress,omitempty"` // of the box
	// Customer is the id of who signed up, "" before: for whoever makes it a session.
	Customer string `json:"-"`
}

const (
	keyPrefix = "ocn_"
	// effectsWithin bounds what is done after a message was taken; whoever sent it may be gone.
	effectsWithin = 30 * time.Second
	// attempts is how often a change is tried while others change the same conversation.
	attempts = 100
)

// Begin opens a conversation on the web. The key is what the browser's cookie has: whoever shows it
// takes part.
func (s *Service) Begin(ctx context.Context, b Begin) (c Conversation, key string, err error) {
	key = keyPrefix + rand.Text() + rand.Text()
	v := s.fresh(Web, 0)
	c, err = s.open(ctx, v, sha256.Sum256([]byte(key)), b)
	return c, key, err
}

// BeginTelegram opens a conversation on Telegram, or goes on with the one that there is.
func (s *Service) BeginTelegram(ctx context.Context, user int64, b Begin) (Conversation, error) {
	if user <= 0 {
		return Conversation{}, fmt.Errorf("begin on Telegram: %w: user %d", control.ErrInvalid, user)
	}
	who := Who{TelegramUser: user}
	for range 2 {
		c, err := s.Look(ctx, who)
		if err == nil && !c.Final {
			return c, nil
		}
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return Conversation{}, err
		}
		c, err = s.open(ctx, s.fresh(Telegram, user), [32]byte{}, b)
		if !errors.Is(err, control.ErrExists) { // or it was opened at the same time
			return c, err
		}
		// Or there is one that has expired, and that nobody has swept away yet.
		if _, err := s.o.Sessions.ExpireOnboardings(ctx, s.now(), page); err != nil {
			return Conversation{}, err
		}
	}
	return s.Look(ctx, who)
}

func (s *Service) fresh(channel Channel, user int64) Session {
	now := s.now()
	return Session{
		ID: control.NewID(control.OnboardingID), Version: 1, State: StateNew, Channel: channel, TelegramUser: user,
		CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(StateNew.keptFor()),
	}
}

func (s *Service) open(ctx context.Context, v Session, key [32]byte, b Begin) (Conversation, error) {
	out := Step(s.o.Tiers.All(), v, b, s.now())
	row, err := out.Session.stored()
	if err != nil {
		return Conversation{}, err
	}
	row.KeyDigest = key
	if err := s.o.Sessions.InsertOnboarding(ctx, row); err != nil {
		return Conversation{}, err
	}
	return s.view(out.Session, out.Reply, nil), nil
}

// find reads a conversation that can be taken up again; otherwise it is control.ErrNotFound.
func (s *Service) find(ctx context.Context, who Who) (Session, error) {
	var row control.OnboardingSession
	var err error
	switch {
	case who.TelegramUser > 0 && who.Key == "":
		row, err = s.o.Sessions.OnboardingOfTelegram(ctx, who.TelegramUser, s.now())
	case strings.HasPrefix(who.Key, keyPrefix) && who.TelegramUser == 0:
		row, err = s.o.Sessions.OnboardingByKey(ctx, sha256.Sum256([]byte(who.Key)), s.now())
	default:
		err = fmt.Errorf("conversation: %w", control.ErrNotFound)
	}
	if err != nil {
		return Session{}, err
	}
	return restored(row)
}

// Say takes what a customer wrote or chose, and answers. It is taken also if the answer does not arrive.
func (s *Service) Say(ctx context.Context, who Who, said Said) (Conversation, error) {
	v, err := s.find(ctx, who)
	if err != nil {
		return Conversation{}, err
	}
	text, tokens, broken := cut(said.Text)
	in := Message{Text: text, Choice: said.Choice, Bots: len(tokens), Broken: broken, NewID: control.NewID(control.CustomerID)}
	if in.Choice == "" && in.Bots == 0 && !said.Hurried {
		in.Heard, in.Lead = s.hear(ctx, v, text)
	}
	var token secret.Text
	if len(tokens) == 1 {
		token = tokens[0]
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), effectsWithin)
	defer cancel()
	v, reply, err := s.drive(ctx, v.ID, in, token)
	if err != nil {
		return Conversation{}, err
	}
	return s.follow(ctx, v, reply, false)
}

// Leave forgets a conversation, unless something was or can be paid for: then it goes on by itself.
func (s *Service) Leave(ctx context.Context, who Who) error {
	v, err := s.find(ctx, who)
	if err != nil {
		return err
	}
	_, err = s.apply(ctx, v.ID, Left{})
	return err
}

// Entered ends what a browser's cookie is good for, once it was exchanged for a session: whoever uses that browser
// after its owner has logged out must not come in by it.
func (s *Service) Entered(ctx context.Context, who Who) error {
	return s.o.Sessions.ForgetOnboardingKey(ctx, sha256.Sum256([]byte(who.Key)))
}

// hear has the model read a message. Whatever goes wrong, the conversation goes on without.
func (s *Service) hear(ctx context.Context, v Session, text string) (Heard, string) {
	if s.o.Model == nil || text == "" || v.State.Final() || v.State.waits() || v.Asking == AskTier || v.Asking == AskNothing || s.rest.asleep(s.now()) {
		return Heard{}, ""
	}
	n := 0
	for _, t := range v.History {
		if !t.Ours {
			n++
		}
	}
	if n >= heardAtMost {
		return Heard{}, ""
	}
	prompt, err := promptOf(v, text)
	if err != nil {
		s.o.Logger.Warn("cannot ask the model", "conversation", v.ID, "error", err)
		return Heard{}, ""
	}
	limited, cancel := context.WithTimeout(ctx, s.o.ModelWithin)
	defer cancel()
	answer, err := s.o.Model.Complete(limited, prompt)
	if ctx.Err() == nil {
		s.rest.note(err != nil, s.now())
	}
	var h Heard
	var lead string
	if err == nil {
		h, lead, err = understood(answer, text)
	}
	if err != nil {
		s.o.Logger.Warn("the conversation goes on without the model", "conversation", v.ID, "error", err)
		return Heard{}, ""
	}
	return h, lead
}

// drive applies an input and what comes of it.
func (s *Service) drive(ctx context.Context, id string, in Input, token secret.Text) (Session, Reply, error) {
	out, err := s.apply(ctx, id, in)
	if err != nil {
		return Session{}, Reply{}, err
	}
	v, reply := out.Session, out.Reply
	for _, e := range out.Effects {
		next, err := s.do(ctx, v, e, token)
		if err != nil {
			return v, reply, err
		}
		if next == nil {
			continue
		}
		after, more, err := s.drive(ctx, id, next, token)
		if err != nil {
			return v, reply, err
		}
		v, reply = after, joined(reply, more)
	}
	return v, reply, nil
}

// joined is both, one after the other; how to go on is what the later one says.
func joined(a, b Reply) Reply {
	b.Text = strings.Trim(a.Text+"\n\n"+b.Text, "\n")
	return b
}

// apply makes one step, in the conversation as it is when nobody else changes it.
func (s *Service) apply(ctx context.Context, id string, in Input) (Outcome, error) {
	var last error
	for range attempts {
		row, err := s.o.Sessions.Onboarding(ctx, id, s.now())
		if err != nil {
			return Outcome{}, err
		}
		v, err := restored(row)
		if err != nil {
			return Outcome{}, err
		}
		out := Step(s.o.Tiers.All(), v, in, s.now())
		if !out.Changed {
			return out, nil
		}
		next, err := out.Session.stored()
		if err != nil {
			return Outcome{}, err
		}
		saved, err := s.o.Sessions.SaveOnboarding(ctx, next)
		if errors.Is(err, control.ErrConflict) {
			last = err
			continue
		}
		if err != nil {
			return Outcome{}, err
		}
		out.Session.Version = saved.Version
		return out, nil
	}
	return Outcome{}, last
}

// view is what the customer sees.
func (s *Service) view(v Session, r Reply, box *control.BoxDetail) Conversation {
	c := Conversation{State: v.State, Final: v.State.Final(), Language: v.Language, Reply: r, History: v.History}
	if v.SignedUp {
		c.Customer = v.Customer
	}
	if box != nil && (v.State == StateProvisioning || v.State == StateFailed || v.State == StateComplete) {
		for _, b := range box.Steps {
			c.Progress = append(c.Progress, stepOf(b))
		}
	}
	return c
}
