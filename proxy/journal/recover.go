package journal

import (
	"cmp"
	"slices"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// attach makes a journal of a file's bytes: it checks them and turns the requests that
// were left open into events. Nothing is written before everything was found whole,
// and a kill anywhere in between leaves what attach can be called on again.
func attach(m mapping, o Options, boot [2]uint64) (*Journal, error) {
	if len(m.b) < pageBytes {
		return nil, damagef("header", "the file has only %d bytes", len(m.b))
	}
	id, whole, err := readIdentity(m.b[:pageBytes])
	if err != nil {
		return nil, err
	}
	if int64(len(m.b)) != id.fileBytes() {
		return nil, damagef("header", "the file has %d bytes and should have %d", len(m.b), id.fileBytes())
	}
	st, err := readState(m.b[:pageBytes])
	if err != nil {
		return nil, err
	}
	if !st.clean && boot != [2]uint64{} && st.boot != [2]uint64{} && boot != st.boot {
		return nil, &DamageError{Part: "file", Stale: true, Reason: "the machine restarted before the file reached the disk, so it may lack events and hold requests that ended"}
	}
	j := &Journal{geometry: id.geometry, replica: id.replica, log: o.Logger, m: m, state: st}
	j.buffers.New = func() any { return new(recordBuffer) }

	logged, err := j.scanLog()
	if err != nil {
		return nil, err
	}
	left, err := j.scanSlots(logged)
	if err != nil {
		return nil, err
	}
	sent := 0
	for _, o := range left {
		logged.epoch = max(logged.epoch, o.ticket>>ticketCountBits)
		if o.sent {
			sent++
		}
	}
	// Begin kept this room, and besides it what one wrap-around wastes, which may have
	// happened by now.
	if j.head-j.tail+uint64(sent)*recordMax+8 > uint64(j.logBytes) {
		return nil, damagef("log", "no room is left for %d open requests", sent)
	}

	if whole == 1 {
		b := id.encode()
		j.m.copyIn(identityAt, b)
		j.m.copyIn(identityAt2, b)
		j.repaired++
	}
	st.epoch = max(st.epoch, logged.epoch) + 1
	st.clean, st.boot = false, boot
	faultpoint.At("journal.attach.before")
	// Both copies, so that the damage of one cannot bring an old life's number back.
	j.writeState(st)
	j.writeState(st)
	faultpoint.At("journal.attach.after")
	j.epoch = st.epoch
	if m.mapped {
		// Else a machine that dies now could come back with the claim to be clean.
		if err := syncMapping(j.m.b[:pageBytes]); err != nil {
			return nil, err
		}
	}
	j.settleSlots(left)
	return j, nil
}

// found is what the log says of slots.
type found struct {
	tickets map[uint64]bool // of the requests whose events are in the log
	epoch   uint64          // the highest of them
}

// scanLog reads every event that is not forgotten, and finds the head.
func (j *Journal) scanLog() (found, error) {
	f := found{tickets: make(map[uint64]bool)}
	j.seq, j.head, j.tail = j.state.forgotten, j.state.tail, j.state.tail
	if j.tail%recordAlign != 0 {
		return f, damagef("header", "the tail %d is not aligned", j.tail)
	}
	for {
		r, err := j.recordFrom(j.head)
		if err == errEnd {
			break
		}
		if err != nil {
			return f, err
		}
		if r.seq != j.seq+1 {
			return f, damagef("log", "event %d follows %d", r.seq, j.seq)
		}
		if _, err := decodeEvent(r.payload, j.replica, r.seq); err != nil {
			return f, damagef("log", "event %d: %v", r.seq, err)
		}
		f.tickets[r.ticket] = true
		f.epoch = max(f.epoch, r.ticket>>ticketCountBits)
		j.seq, j.head = r.seq, r.next
		if j.head-j.tail > uint64(j.logBytes) {
			return f, damagef("log", "it has no end")
		}
	}
	j.last.Store(j.seq)
	return f, nil
}

// openSlot is a slot that was not free.
type openSlot struct {
	i      int
	ticket uint64
	sent   bool
	intent Intent
	counts counts
	exact  bool // the counts are as last advanced, rather than damaged
}

// scanSlots finds the slots that are open and not in the log.
func (j *Journal) scanSlots(f found) ([]openSlot, error) {
	j.slots = make([]slot, j.geometry.slots)
	j.free = make([]uint32, 0, len(j.slots))
	var left []openSlot
	for i := range j.slots {
		st, low, ok := j.slotState(i)
		if !ok {
			return nil, damagef("slot", "the state of slot %d is not readable", i)
		}
		if st == slotFree {
			continue
		}
		at := j.slotAt(i)
		ticket := j.m.load(at + slotTicket)
		in, err := j.readIntent(i)
		if err != nil || uint32(ticket)&0xffffff != low {
			return nil, damagef("slot", "the request in slot %d is not readable", i)
		}
		if f.tickets[ticket] {
			// Killed between event and slot: freed below.
			left = append(left, openSlot{i: i, ticket: ticket})
			continue
		}
		o := openSlot{i: i, ticket: ticket, sent: st == slotSent, intent: in}
		o.counts, o.exact = j.readCounts(i, ticket)
		left = append(left, o)
	}
	for i := len(j.slots) - 1; i >= 0; i-- {
		j.free = append(j.free, uint32(i))
	}
	slices.SortFunc(left, func(a, b openSlot) int { return cmp.Compare(a.ticket, b.ticket) })
	return left, nil
}

// slotState reads a slot's state from the first copy that is whole. The first is
// written first, so it is never the older one. A slot never used is all zeros.
func (j *Journal) slotState(i int) (st uint8, low24 uint32, ok bool) {
	w, mirror := j.m.load(j.slotAt(i)+slotState), j.m.load(j.slotAt(i)+slotMirror)
	if st, low24, ok = parseStateWord(i, w); ok {
		return st, low24, ok
	}
	if w == 0 && mirror == 0 {
		return slotFree, 0, true
	}
	st, low24, ok = parseStateWord(i, mirror)
	if ok {
		j.repaired++
	} else if w == 0 || mirror == 0 {
		// One of the zeros of a slot never used was changed.
		j.repaired++
		return slotFree, 0, true
	}
	return st, low24, ok
}

func (j *Journal) readIntent(i int) (Intent, error) {
	at := j.slotAt(i)
	w := j.m.load(at + slotIntentLen)
	n, crc := int64(uint32(w)), uint32(w>>32)
	if n > intentMax {
		return Intent{}, errPayload
	}
	payload := j.m.b[at+slotIntent : at+slotIntent+n]
	if intentCRC(j.m.b[at+slotTicket:at+slotTicket+8], payload) != crc {
		return Intent{}, errPayload
	}
	in, err := decodeIntent(payload)
	if err == nil {
		err = in.validate()
	}
	return in, err
}

// readCounts returns the newest whole copy of the counts. exact is false where a copy
// is damaged rather than half written: then it may have been the newest.
func (j *Journal) readCounts(i int, ticket uint64) (newest counts, exact bool) {
	exact = true
	var highest uint64
	any := false
	for n := range uint64(2) {
		at := j.countsAt(i, n)
		var w [5]uint64
		for k := range w {
			w[k] = j.m.load(at + 8 + int64(k)*8)
		}
		if j.m.load(at+48) != checksum(ticket, w[:]) {
			exact = exact && j.m.load(at) != 0
			continue
		}
		if !any || w[0]>>1 > highest {
			any, highest = true, w[0]>>1
			newest = counts{prompt: int64(w[1]), cached: int64(w[2]), completion: int64(w[3]), reasoning: int64(w[4]), relayed: w[0]&1 == 1}
		}
	}
	return newest, exact && any
}

// settleSlots frees the slots that were open. One whose request was sent and has no
// event in the log gets one, by the same steps as Complete takes.
func (j *Journal) settleSlots(left []openSlot) {
	// finish puts each slot on the free list, which scanSlots filled already.
	free := j.free
	for _, o := range left {
		if !o.sent {
			j.setState(o.i, slotFree, o.ticket)
			continue
		}
		ev := o.event()
		buf := new(recordBuffer)
		b := appendAdmission(append(buf[:recordHeader], payloadVersion), &o.intent)
		b = appendOutcome(b, &ev)
		faultpoint.At("journal.recover.before")
		ev.Replica, ev.Seq = j.replica, j.finish(uint32(o.i), o.ticket, buf, len(b))
		faultpoint.At("journal.recover.after")
		j.recovered = append(j.recovered, ev)
		if !o.exact {
			j.repaired++
		}
	}
	j.free = free
}

// event is what a request is billed that was left open: at least what was relayed, at
// most what was reserved, and never 0 once a byte was relayed. What was counted beyond
// the bounds is unbilled.
func (o *openSlot) event() contract.Event {
	in, c := &o.intent, o.counts
	e := in.event()
	e.Basis, e.Outcome = contract.BasisRecovered, contract.OutcomeProxyCrashed
	if !o.exact {
		// Nobody knows how far it came; the bounds hold whatever it was.
		c = counts{completion: in.OutputBound, relayed: true}
	}
	e.Prompt = in.PromptBound
	if c.prompt > 0 {
		e.Prompt = min(c.prompt, in.PromptBound)
		e.Cached = min(max(c.cached, 0), e.Prompt)
	}
	e.Completion = min(max(c.completion, 0), in.OutputBound)
	e.Reasoning = min(max(c.reasoning, 0), e.Completion)
	if c.relayed && e.Prompt+e.Completion == 0 {
		e.Completion = 1
	}
	used := contract.Weigh(in.Weights, e.Prompt, e.Cached, e.Completion)
	e.Settled = min(used, in.Reserved)
	prompt := max(c.prompt, e.Prompt)
	counted := contract.Weigh(in.Weights, prompt, min(max(c.cached, e.Cached), prompt), max(c.completion, e.Completion))
	e.Unbilled = max(counted, used) - e.Settled
	return e
}

// newHeader is the first page of a journal without slots in use or events.
func newHeader(id identity, st state) []byte {
	page := make([]byte, pageBytes)
	b := id.encode()
	copy(page[identityAt:], b)
	copy(page[identityAt2:], b)
	b = st.encode()
	copy(page[stateAt:], b)
	copy(page[stateAt2:], b)
	return page
}
