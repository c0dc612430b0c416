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

// Deliver tells what Notify was given, until ctx ends and nothing is left. What Telegram did not take at first is
// left to Finish.
func (b *Bot) Deliver(ctx context.Context) error {
	working, cancel := lasting(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range tellers {
		wg.Go(func() { b.deliver(ctx, working) })
	}
	wg.Wait()
	return nil
}

// Finish tells what Notify was given too late for Deliver, and sends what Telegram did not take at first, until ctx
// ends. It is called once, after Run and Deliver have returned and nobody calls Notify any more: what they send is
// awaited, too.
func (b *Bot) Finish(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case n := <-b.notes:
			b.Tell(ctx, n.user, n.c)
			continue
		default:
		}
		break
	}
	b.lines.finish(ctx)
}

// deliver tells until ctx ends, and, for as long as working has not, what was given until then.
func (b *Bot) deliver(ctx, working context.Context) {
	for {
		select {
		case n := <-b.notes:
			b.Tell(working, n.user, n.c)
			continue
		default:
		}
		select {
		case n := <-b.notes:
			b.Tell(working, n.user, n.c)
		case <-ctx.Done():
			return
		}
	}
}
