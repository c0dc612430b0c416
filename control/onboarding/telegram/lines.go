package telegram

import (
	"context"
	"sync"
	"time"
)

const (
	// mostTries is how often it is tried to send a message, the first time included. At the end only the time that is
	// left bounds it.
	mostTries = 3
	// leastPause is between two tries at the end, unless Telegram wants it sooner.
	leastPause = time.Second
	// mostLetters is how many messages may wait to be sent again.
	mostLetters = 1000
)

// letter is a message that waits to be sent, or something else to call Telegram for.
type letter struct {
	method string
	params map[string]any
	pause  time.Duration // before it is sent
	tries  int
}

// lines are the messages that Telegram did not take, by who is to get them, and those that came after them: each
// person's in their order. Nobody else waits for them.
type lines struct {
	mu      sync.Mutex
	changed *sync.Cond
	of      map[int64][]letter
	n       int
	until   time.Time       // set before hurry is closed
	hurry   chan struct{}   // closed: what waits has to be sent until then
	over    context.Context // ended: what is left is not sent
	end     context.CancelFunc
}

func newLines() *lines {
	l := &lines{of: make(map[int64][]letter), hurry: make(chan struct{})}
	l.over, l.end = context.WithCancel(context.Background())
	l.changed = sync.NewCond(&l.mu)
	return l
}

// join puts a message behind those that wait for the same person, and reports whether there are any. With always it
// does so if there are none, too. full says that too many wait: then it is not sent.
func (l *lines) join(user int64, m letter, always bool) (joined, first, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.of[user])
	switch {
	case before == 0 && !always:
		return false, false, false
	case l.n >= mostLetters:
		return true, false, true
	}
	l.of[user] = append(l.of[user], m)
	l.n++
	return true, before == 0, false
}

// done takes the first message of a person away, and returns the next one, if there is one.
func (l *lines) done(user int64) (next letter, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.of[user] = l.of[user][1:]; len(l.of[user]) > 0 {
		return l.of[user][0], true
	}
	delete(l.of, user)
	l.changed.Broadcast()
	return letter{}, false
}

// finish returns once nothing waits, or ctx has ended: what is left then is not sent. It is called once.
func (l *lines) finish(ctx context.Context) {
	l.until = time.Now().Add(FinishWithin)
	if end, ok := ctx.Deadline(); ok {
		l.until = end
	}
	defer l.end()
	defer context.AfterFunc(ctx, l.end)()
	defer time.AfterFunc(time.Until(l.until), l.end).Stop()
	close(l.hurry)
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.n > 0 {
		l.changed.Wait()
	}
}

// ending reports whether finish was called.
func (l *lines) ending() bool {
	select {
	case <-l.hurry:
		return true
	default:
		return false
	}
}

// sendLine sends what waits for a person, until nothing does. Whoever has joined first calls it.
func (b *Bot) sendLine(user int64, m letter) {
	for more := true; more; m, more = b.lines.done(user) {
		b.sendLetter(m)
	}
}

// sendLetter sends a message, again and again if Telegram wants that.
func (b *Bot) sendLetter(m letter) {
	for {
		b.lines.pause(m.pause)
		if b.lines.over.Err() != nil {
			b.o.Logger.Warn("a message on Telegram " + unlucky(m.method) + ": there is no time left")
			return
		}
		err := b.brief(b.lines.over, m.method, m.params)
		pause, again := b.again(err)
		if m.tries++; !again || m.tries >= mostTries && !b.lines.ending() {
			b.note(m.method, err)
			return
		}
		m.pause = pause
	}
}

// pause waits. Who is to wait for longer than there is time at the end is tried again before that is over.
func (l *lines) pause(d time.Duration) {
	due := time.Now().Add(d)
	wait(d, l.hurry)
	if l.ending() {
		wait(min(time.Until(due), max(time.Until(l.until)/2, leastPause)), l.over.Done())
	}
}

// wait waits, or until something is closed.
func wait(d time.Duration, closed <-chan struct{}) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-closed:
	}
}
