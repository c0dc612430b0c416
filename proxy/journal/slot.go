package journal

import (
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// Slot is the place of one request in flight. Its methods may be called from any
// goroutine; after Complete or Abandon they do nothing, as do those of the zero Slot.
type Slot struct {
	j      *Journal
	i      uint32
	ticket uint64
}

// slot is what the process knows of a slot without reading the file. Its lock is
// contended only where two goroutines drive one request, or by Close.
type slot struct {
	mu        sync.Mutex
	ticket    uint64 // of the request that has the slot; 0 if none
	admission int    // length of the payload version and admission part of the intent
	writes    uint64 // of counts
	counts    counts
}

// counts is how far a request has come.
type counts struct {
	prompt, cached, completion, reasoning int64
	relayed                               bool
}

// Begin takes a slot for a request that is about to be sent upstream. It fails with
// ErrFull, ErrClosed, or with an error saying what is wrong with the intent. Room for
// the request's event is kept from here on. in is not kept.
func (j *Journal) Begin(in *Intent) (Slot, error) {
	if err := in.validate(); err != nil {
		return Slot{}, err
	}
	i, ticket, err := j.takeSlot()
	if err != nil {
		return Slot{}, err
	}
	buf := j.buffers.Get().(*recordBuffer)
	b, admission := appendIntent(buf[:recordHeader], in)

	s := &j.slots[i]
	s.mu.Lock()
	if j.closed.Load() {
		s.mu.Unlock()
		j.buffers.Put(buf)
		return Slot{}, ErrClosed
	}
	// The slot is free, so nothing of this counts before its state says open.
	at := j.slotAt(int(i))
	binary.NativeEndian.PutUint64(buf[8:], ticket)
	crc := intentCRC(b[8:16], b[recordHeader:])
	j.m.put(at+slotIntentLen, uint64(len(b)-recordHeader)|uint64(crc)<<32)
	j.m.put(at+slotTicket, ticket)
	j.m.copyIn(at+slotIntent, b[recordHeader:])
	s.admission, s.writes, s.counts = admission-recordHeader, 0, counts{}
	j.writeCounts(int(i), ticket, 0, s.counts)
	j.writeCounts(int(i), ticket, 1, s.counts)
	s.writes = 2
	faultpoint.At("journal.begin.before")
	j.setState(int(i), slotOpen, ticket)
	faultpoint.At("journal.begin.after")
	s.ticket = ticket
	s.mu.Unlock()
	j.buffers.Put(buf)
	return Slot{j: j, i: i, ticket: ticket}, nil
}

func (j *Journal) takeSlot() (i uint32, ticket uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed.Load() {
		return 0, 0, ErrClosed
	}
	if err := j.room(); err != nil {
		j.full++
		return 0, 0, err
	}
	i = j.free[len(j.free)-1]
	j.free = j.free[:len(j.free)-1]
	j.count++
	return i, j.epoch<<ticketCountBits | j.count, nil
}

// A ticket is the number of the opening and the number of the request within it: no
// two requests of one file ever have the same.
const ticketCountBits = 40

func intentCRC(ticket, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(payload, castagnoli), castagnoli, ticket)
}

// setState is one atomic store; the second one repeats it for the case that the first
// is damaged later.
func (j *Journal) setState(i int, st uint8, ticket uint64) {
	w := stateWord(i, st, ticket)
	j.m.store(j.slotAt(i)+slotState, w)
	j.m.store(j.slotAt(i)+slotMirror, w)
}

// writeCounts writes the copy for write number n, which leaves the copy of the write
// before it whole.
func (j *Journal) writeCounts(i int, ticket, n uint64, c counts) {
	at := j.countsAt(i, n)
	w := c.words(n)
	j.m.store(at, 1) // being written
	for k, v := range w {
		j.m.put(at+8+int64(k)*8, v)
	}
	faultpoint.At("journal.advance.during")
	j.m.store(at+48, checksum(ticket, w[:]))
	j.m.store(at, 0)
}

func (c counts) words(n uint64) [5]uint64 {
	first := n << 1
	if c.relayed {
		first |= 1
	}
	return [5]uint64{first, uint64(c.prompt), uint64(c.cached), uint64(c.completion), uint64(c.reasoning)}
}

// lock returns the slot, locked, if the request still has it.
func (s Slot) lock() *slot {
	if s.j == nil {
		return nil
	}
	sl := &s.j.slots[s.i]
	sl.mu.Lock()
	if sl.ticket != s.ticket {
		sl.mu.Unlock()
		return nil
	}
	return sl
}

// Sent says that the request may have reached the upstream. Call it before the first
// byte is sent: a request that was never Sent leaves no event after a crash.
func (s Slot) Sent() {
	sl := s.lock()
	if sl == nil {
		return
	}
	faultpoint.At("journal.sent.before")
	s.j.setState(int(s.i), slotSent, s.ticket)
	faultpoint.At("journal.sent.after")
	sl.mu.Unlock()
}

// Advance notes the counts so far, in tokens. Call it before the bytes they count are
// given to the client. Completion and reasoning only grow: a lower count is ignored.
// Prompt and cached are as the upstream reported them last; 0 prompt means not yet.
// What exceeds the intent's bounds counts as unbilled: pass what the upstream counted, not an
// estimate. relayed says that a byte of the answer reaches the client, and stays once said.
func (s Slot) Advance(prompt, cached, completion, reasoning int64, relayed bool) {
	sl := s.lock()
	if sl == nil {
		return
	}
	c := &sl.counts
	if prompt > 0 {
		c.prompt, c.cached = prompt, max(cached, 0)
	}
	c.completion = max(c.completion, completion)
	c.reasoning = max(c.reasoning, reasoning)
	c.relayed = c.relayed || relayed
	faultpoint.At("journal.advance.before")
	s.j.writeCounts(int(s.i), s.ticket, sl.writes, *c)
	faultpoint.At("journal.advance.after")
	sl.writes++
	sl.mu.Unlock()
}

// Complete ends the request with its event and returns the event's number, which it
// also sets in ev, with the replica. What is fixed at admission is taken from the
// intent, whatever ev says: AdmittedAt, PeriodID, RequestID, CustomerID, BoxID,
// TokenID, Tier, ModelAsked, Face and Reserved. It returns 0 and does nothing if the request was
// ended before, or the journal closed.
func (s Slot) Complete(ev *contract.Event) int64 {
	sl := s.lock()
	if sl == nil {
		return 0
	}
	j := s.j
	buf := j.buffers.Get().(*recordBuffer)
	at := j.slotAt(int(s.i)) + slotIntent
	b := append(buf[:recordHeader], j.m.b[at:at+int64(sl.admission)]...)
	b = appendOutcome(b, ev)
	seq := j.finish(s.i, s.ticket, buf, len(b))
	sl.ticket = 0
	sl.mu.Unlock()
	j.buffers.Put(buf)
	ev.Replica, ev.Seq = j.replica, seq
	j.wake()
	return seq
}

// finish appends the record whose payload is in buf[recordHeader:n], and frees the
// slot. The slot's lock is held.
func (j *Journal) finish(i uint32, ticket uint64, buf *recordBuffer, n int) int64 {
	for n%recordAlign != 0 {
		buf[n] = 0
		n++
	}
	crc := crc32.Checksum(buf[recordHeader:n], castagnoli)
	binary.NativeEndian.PutUint64(buf[8:], ticket)

	j.mu.Lock()
	defer j.mu.Unlock()
	faultpoint.At("journal.complete.before")
	seq := j.append(buf, n, crc)
	// Killed here, the record's ticket tells recovery that the slot is free.
	faultpoint.At("journal.complete.during")
	j.setState(int(i), slotFree, ticket)
	faultpoint.At("journal.complete.after")
	j.free = append(j.free, i)
	// Readers learn of the event only now. Were it sooner, it could be shipped and
	// forgotten while the slot still looks open, and be recovered a second time.
	j.last.Store(seq)
	return seq
}

// Abandon ends a request of which nothing came: no event. If it was Sent and the
// process dies within this call, the request may still be recovered.
func (s Slot) Abandon() {
	sl := s.lock()
	if sl == nil {
		return
	}
	j := s.j
	faultpoint.At("journal.abandon.before")
	j.setState(int(s.i), slotFree, s.ticket)
	faultpoint.At("journal.abandon.after")
	sl.ticket = 0
	j.mu.Lock()
	j.free = append(j.free, s.i)
	j.mu.Unlock()
	sl.mu.Unlock()
}
