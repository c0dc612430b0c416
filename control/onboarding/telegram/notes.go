package telegram

import (
	"context"
	"sync"

	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
)

const (
	// mostNotes is how many people may wait to be told something.
	mostNotes = 1000
	// tellers is how many are told at once.
	tellers = 4
)

// note is something to tell.
type note struct {
	user int64
	c    onboarding.Conversation
}

// Notify has Deliver tell somebody what is new: whoever finds that out does not wait for Telegram. It is
// onboarding.Options.Notify. What cannot be told is seen by whoever writes again.
func (b *Bot) Notify(_ context.Context, user int64, c onboarding.Conversation) {
	select {
	case b.notes <- note{user, c}:
	default:
		b.o.Logger.Warn("somebody on Telegram is not told what is new: too many wait")
	}
}

// Deliver tells what Notify was given, until ctx ends and nothing is left.
func (b *Bot) Deliver(ctx context.Context) error {
	var wg sync.WaitGroup
	for range tellers {
		wg.Go(func() { b.deliver(ctx) })
	}
	wg.Wait()
	return nil
}

func (b *Bot) deliver(ctx context.Context) {
	for {
		select {
		case n := <-b.notes:
			b.tellFully(ctx, n)
			continue
		default:
		}
		select {
		case n := <-b.notes:
			b.tellFully(ctx, n)
		case <-ctx.Done():
			return
		}
	}
}

// tellFully tells also if ctx ends meanwhile, for as long as a message may take.
func (b *Bot) tellFully(ctx context.Context, n note) {
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
	defer cancel()
	b.Tell(working, n.user, n.c)
}
