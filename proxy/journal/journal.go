package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The errors that callers tell apart.
var (
	// ErrFull: the journal has no room for another request. Refuse it with 503; room
	// comes back as requests end and as events are forgotten.
	ErrFull = errors.New("journal: full")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal: closed")
	// ErrLocked: another process has this journal open.
	ErrLocked = errors.New("journal: in use by another process")
	// ErrVersion: the file is of a format version that this build does not know.
	ErrVersion = errors.New("journal: unknown format version")

	errSlots = fmt.Errorf("%w: every slot is in use", ErrFull)
	errLog   = fmt.Errorf("%w: too many events wait to be shipped", ErrFull)
)

// The limits of Options.
const (
	maxSlots    = 1 << 20
	minLogBytes = pageBytes
	maxLogBytes = 1 << 50
)

// Options are the settings of a journal. The zero value is usable.
type Options struct {
	// Slots is the most requests in flight, 1 to 1,048,576. Defaults to 16384. Each takes 1 KiB of
	// the file, and about as much of the log while it is open.
	Slots int
	// LogBytes is the room for events, rounded up to 4096. Defaults to 64 MiB, which is
	// about 200,000 events.
	LogBytes int64
	// Logger defaults to discarding.
	Logger *slog.Logger
	// Now defaults to time.Now. It names files that are set aside.
	Now func() time.Time

	boot func() [2]uint64 // for tests; defaults to bootID
}

func (o Options) withDefaults() (Options, error) {
	if o.Slots == 0 {
		o.Slots = 16384
	}
	if o.LogBytes == 0 {
		o.LogBytes = 64 << 20
	}
	if err := o.Validate(); err != nil {
		return o, fmt.Errorf("journal: %w", err)
	}
	o.LogBytes = (o.LogBytes + pageBytes - 1) / pageBytes * pageBytes
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.boot == nil {
		o.boot = bootID
	}
	return o, nil
}

// Validate says what is wrong with o, if anything.
func (o Options) Validate() error {
	if o.Slots < 0 || o.Slots > maxSlots {
		return fmt.Errorf("%d slots: must be from 1 to %d", o.Slots, maxSlots)
	}
	if o.LogBytes < 0 || o.LogBytes > maxLogBytes {
		return fmt.Errorf("log of %d bytes: must be from %d to %d", o.LogBytes, minLogBytes, int64(maxLogBytes))
	}
	return nil
}

// Journal is an open journal. All methods are safe for concurrent use.
//
// Locks, in the order in which they are taken: readMu; a slot's own lock; mu.
type Journal struct {
	geometry
	replica string
	epoch   uint64
	dir     string
	file    *os.File // nil in tests that keep the journal in memory
	lock    *os.File
	log     *slog.Logger

	m         mapping
	slots     []slot
	recovered []contract.Event
	repaired  int
	aside     []string
	buffers   sync.Pool // of *recordBuffer

	last   atomic.Int64 // number of the newest event whose slot is free again
	closed atomic.Bool

	mu    sync.Mutex // guards the following, and appending; held for well under a microsecond
	seq   int64      // number of the newest event in the log
	head  uint64     // offset after it, counted over all laps
	tail  uint64     // offset of the oldest event that is kept
	free  []uint32   // free slots; the one used last is used first
	count uint64     // tickets given since the journal was opened
	full  int64      // refusals of Begin

	readMu  sync.Mutex // guards the following, and freeing of log space; held while events are decoded
	state   state
	cursors [4]cursor // where readers were last

	waitMu  sync.Mutex
	waitC   chan struct{} // closed at the next event; nil if nobody waits
	waiting atomic.Bool   // waitC is not nil
}

type recordBuffer [recordMax]byte

// Replica returns the random name that was made together with the journal's file and
// lives as long: 26 characters, lower-case letters and digits.
func (j *Journal) Replica() string { return j.replica }

// Life counts the openings of the journal's file: it is at least 1, grows with each
// opening, and is never used twice, whatever kills the process.
func (j *Journal) Life() uint64 { return j.epoch }

// Recovered returns the events that Open made of the requests that it found open:
// basis recovered, outcome proxy_crashed. They are in the log like any others.
func (j *Journal) Recovered() []contract.Event { return slices.Clone(j.recovered) }

// Aside returns the paths of journals that this and earlier openings set aside as
// damaged or stale. Read them with Salvage; remove them when they are dealt with.
func (j *Journal) Aside() []string { return slices.Clone(j.aside) }

// Last returns the number of the newest event, 0 before the first.
func (j *Journal) Last() int64 { return j.last.Load() }

// Full reports whether Begin would fail for lack of room just now.
func (j *Journal) Full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.room() != nil
}

// room returns why there is none for another request. j.mu is held.
func (j *Journal) room() error {
	if len(j.free) == 0 {
		return errSlots
	}
	if j.head-j.tail+uint64(j.open()+1)*recordMax+logSlack > uint64(j.logBytes) {
		return errLog
	}
	return nil
}

// open returns how many slots are in use. j.mu is held.
func (j *Journal) open() int { return len(j.slots) - len(j.free) }

// Stats is a journal's state, for metrics.
type Stats struct {
	Slots     int       // the most requests in flight
	Open      int       // requests in flight
	LogBytes  int64     // room for events
	LogUsed   int64     // taken by events that are not forgotten
	LogKept   int64     // kept for the events of requests in flight, and spare
	Last      int64     // number of the newest event
	Forgotten int64     // number up to which events are forgotten
	Waiting   int64     // events that are not forgotten: what would be lost with the file, beside Open
	Oldest    time.Time // when the oldest of them ended (admission + duration); zero if none
	Refused   int64     // calls of Begin that found no room
	Recovered int       // events made at Open of requests that were left open
	Repaired  int       // damages found at Open that cost nothing or only exactness
	Aside     int       // files set aside that still lie in the directory
}

// Stats returns the state of the moment.
func (j *Journal) Stats() Stats {
	j.readMu.Lock()
	defer j.readMu.Unlock()
	s := Stats{Slots: len(j.slots), LogBytes: j.logBytes, Recovered: len(j.recovered), Repaired: j.repaired, Aside: len(j.aside)}
	j.mu.Lock()
	s.Open = j.open()
	s.LogUsed = int64(j.head - j.tail)
	s.LogKept = int64(s.Open)*recordMax + logSlack
	s.Refused = j.full
	j.mu.Unlock()
	s.Last, s.Forgotten = j.last.Load(), j.state.forgotten
	s.Waiting = s.Last - s.Forgotten
	if s.Waiting > 0 && !j.closed.Load() {
		if r, err := j.recordFrom(j.state.tail); err == nil {
			if e, err := decodeEvent(r.payload, j.replica, r.seq); err == nil {
				s.Oldest = e.AdmittedAt.Add(time.Duration(e.DurationMicros) * time.Microsecond)
			}
		}
	}
	return s
}

// Wait returns nil once there is an event with a number above after, otherwise
// ErrClosed or the context's error.
func (j *Journal) Wait(ctx context.Context, after int64) error {
	for {
		if j.closed.Load() {
			return ErrClosed
		}
		if j.last.Load() > after {
			return nil
		}
		j.waitMu.Lock()
		if j.waitC == nil {
			j.waitC = make(chan struct{})
			j.waiting.Store(true)
		}
		c := j.waitC
		j.waitMu.Unlock()
		// Only now: an event or Close from here on closes c.
		if j.last.Load() > after {
			return nil
		}
		if j.closed.Load() {
			return ErrClosed
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake ends every Wait, which then looks again.
func (j *Journal) wake() {
	if !j.waiting.Load() {
		return
	}
	j.waitMu.Lock()
	if j.waitC != nil {
		close(j.waitC)
		j.waitC = nil
		j.waiting.Store(false)
	}
	j.waitMu.Unlock()
}

// Close writes everything to the disk and gives the journal up. Requests that are
// still open stay so in the file: the next Open recovers them, and what their slots
// are told from now on is ignored.
func (j *Journal) Close() error {
	if j.closed.Swap(true) {
		return nil
	}
	j.wake()
	// Whoever has a slot's lock may be writing to the mapping; after this nobody is.
	for i := range j.slots {
		s := &j.slots[i]
		s.mu.Lock()
		s.ticket = 0
		s.mu.Unlock()
	}
	j.readMu.Lock()
	defer j.readMu.Unlock()
	if j.file == nil {
		return nil
	}
	err := syncMapping(j.m.b)
	if err == nil {
		// Only what reached the disk may claim to be clean.
		st := j.state
		st.clean = true
		j.writeState(st)
		err = syncMapping(j.m.b[:pageBytes])
	}
	if e := unmap(j.m.b); err == nil {
		err = e
	}
	j.m.b = nil
	if e := errors.Join(closeLocked(j.file), closeLocked(j.lock)); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close journal in %s: %w", j.dir, err)
	}
	return nil
}

// writeState makes st the journal's state. j.readMu is held.
func (j *Journal) writeState(st state) {
	st.n = j.state.n + 1
	j.m.copyIn(st.place(), st.encode())
	j.state = st
}
