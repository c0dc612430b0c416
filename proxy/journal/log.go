package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// append writes a record of n bytes at the head of the log. buf holds the ticket and
// the payload, whose checksum is crc. j.mu is held, and Begin has kept the room.
//
// The log always ends with a zero word, so nothing of this counts until that word
// becomes the record's commit word, with one store. By then the next zero is in place.
func (j *Journal) append(buf *recordBuffer, n int, crc uint32) int64 {
	seq := j.seq + 1
	binary.NativeEndian.PutUint64(buf[16:], uint64(seq))
	crc = crc32.Update(crc, castagnoli, buf[8:recordHeader])

	size := uint64(j.logBytes)
	log := j.logAt()
	pos := j.head % size
	at, pad := pos, uint64(0)
	if size-pos < uint64(n) {
		at, pad = 0, size-pos // a record is never split: it starts the next lap
	}
	end := (at + uint64(n)) % size
	j.m.store(log+int64(end), 0)
	j.m.copyIn(log+int64(at)+8, buf[8:n])
	faultpoint.At("journal.commit.before")
	j.m.store(log+int64(at), commitWord(kindEvent, n, crc))
	faultpoint.At("journal.commit.after")
	if pad > 0 {
		// The log still ends before the padding; this store takes both in.
		j.m.store(log+int64(pos), commitWord(kindPad, int(pad), padCRC(j.head, int(pad))))
	}
	j.head += pad + uint64(n)
	j.seq = seq
	return seq
}

// record is one event in the log, its payload still in the mapping.
type record struct {
	seq     int64
	ticket  uint64
	payload []byte
	next    uint64 // offset after it, counted over all laps
}

// recordFrom reads the first record at or after an offset, over padding. It returns
// errEnd at the end of the log and a damage where the bytes cannot be a record.
func (j *Journal) recordFrom(off uint64) (record, error) {
	size := uint64(j.logBytes)
	log := j.m.b[j.logAt():j.fileBytes()]
	for range 2 {
		pos := off % size
		w := binary.NativeEndian.Uint64(log[pos:])
		if w == 0 {
			return record{}, errEnd
		}
		kind, n, crc := parseCommitWord(w)
		if kind == kindPad {
			if pad := size - pos; n != int(pad) || crc != padCRC(off, n) || pos == 0 {
				return record{}, damagef("log", "the padding at offset %d is not whole", pos)
			}
			off += uint64(n)
			continue
		}
		if kind != kindEvent || !wholeRecord(log[pos:], n, crc) {
			return record{}, damagef("log", "the record at offset %d is not whole", pos)
		}
		b := log[pos : pos+uint64(n)]
		return record{
			seq:    int64(binary.NativeEndian.Uint64(b[16:])),
			ticket: binary.NativeEndian.Uint64(b[8:]), payload: b[recordHeader:], next: off + uint64(n),
		}, nil
	}
	return record{}, damagef("log", "padding after padding at offset %d", off%size)
}

// wholeRecord reports whether b starts with a record of n bytes whose checksum is crc.
func wholeRecord(b []byte, n int, crc uint32) bool {
	if n <= recordHeader || n > recordMax || n%recordAlign != 0 || n > len(b) {
		return false
	}
	got := crc32.Checksum(b[recordHeader:n], castagnoli)
	return crc32.Update(got, castagnoli, b[8:recordHeader]) == crc
}

// cursor is a place in the log: the event numbered seq ends at offset off.
type cursor struct {
	seq int64
	off uint64
}

// locate returns the nearest known place at or before the end of event after. j.readMu
// is held.
func (j *Journal) locate(after int64) cursor {
	best := cursor{seq: j.state.forgotten, off: j.state.tail}
	for _, c := range j.cursors {
		if c.seq > best.seq && c.seq <= after {
			best = c
		}
	}
	return best
}

// remember keeps a place for a reader that was at from before. j.readMu is held.
func (j *Journal) remember(from, at cursor) {
	oldest := 0
	for k, c := range j.cursors {
		if c.seq == from.seq {
			j.cursors[k] = at
			return
		}
		if c.seq < j.cursors[oldest].seq {
			oldest = k
		}
	}
	j.cursors[oldest] = at
}

// Next returns up to limit events with numbers above after, in order and without gaps;
// none if there are none. Up to four readers at different places are served without
// searching. An error other than ErrClosed means that the file was changed by others.
func (j *Journal) Next(after int64, limit int) ([]contract.Event, error) {
	j.readMu.Lock()
	defer j.readMu.Unlock()
	if j.closed.Load() {
		return nil, ErrClosed
	}
	last := j.last.Load()
	after = max(after, j.state.forgotten)
	if after >= last || limit <= 0 {
		return nil, nil
	}
	at := j.locate(after)
	start := at
	var events []contract.Event
	for at.seq < last && len(events) < limit {
		r, err := j.recordFrom(at.off)
		if err != nil {
			return nil, err
		}
		if r.seq != at.seq+1 {
			return nil, damagef("log", "event %d follows %d", r.seq, at.seq)
		}
		at = cursor{seq: r.seq, off: r.next}
		if r.seq <= after {
			start = at
			continue
		}
		e, err := decodeEvent(r.payload, j.replica, r.seq)
		if err != nil {
			return nil, damagef("log", "event %d: %v", r.seq, err)
		}
		if events == nil {
			events = make([]contract.Event, 0, min(int64(limit), last-after))
		}
		events = append(events, e)
	}
	j.remember(start, at)
	return events, nil
}

// Forget says that every event up to the given number is where it will never be lost,
// so that its room can be used again. It is remembered in the file, never goes back,
// and goes no further than Last.
func (j *Journal) Forget(upTo int64) error {
	j.readMu.Lock()
	defer j.readMu.Unlock()
	if j.closed.Load() {
		return ErrClosed
	}
	upTo = min(upTo, j.last.Load())
	if upTo <= j.state.forgotten {
		return nil
	}
	at := j.locate(upTo)
	for at.seq < upTo {
		r, err := j.recordFrom(at.off)
		if err != nil {
			return err
		}
		at = cursor{seq: r.seq, off: r.next}
	}
	st := j.state
	st.forgotten, st.tail = at.seq, at.off
	faultpoint.At("journal.forget.before")
	j.writeState(st)
	faultpoint.At("journal.forget.after")
	// Only now may the room be used: a kill before left the old state, which needs it.
	j.mu.Lock()
	j.tail = at.off
	j.mu.Unlock()
	return nil
}

// Forgotten returns the number up to which events are forgotten, 0 before the first.
func (j *Journal) Forgotten() int64 {
	j.readMu.Lock()
	defer j.readMu.Unlock()
	return j.state.forgotten
}
