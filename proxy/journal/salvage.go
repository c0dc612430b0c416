package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Salvaged is what can be read of a journal that is not open.
type Salvaged struct {
	Replica   string // empty where the header is lost; then nothing else is known
	Created   time.Time
	Forgotten int64
	// Events are those that are whole and not known to be forgotten, by number. They carry
	// their names, so that shipping them again changes nothing where they arrived before.
	Events []contract.Event
	// Open are the requests that were sent and have no event, as they would be recovered,
	// with number 0. In a stale journal some may have ended and be billed already.
	Open []contract.Event
	// Damage says what could not be read.
	Damage []string
}

// Salvage reads a journal that Open set aside. It changes nothing, and needs no order
// in the file: each event and each request is judged alone.
func Salvage(path string) (Salvaged, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Salvaged{}, fmt.Errorf("salvage journal: %w", err)
	}
	s, err := salvage(b)
	if err != nil {
		return s, fmt.Errorf("salvage journal %s: %w", path, err)
	}
	return s, nil
}

func salvage(b []byte) (Salvaged, error) {
	var s Salvaged
	if len(b) < pageBytes {
		return s, damagef("header", "the file has only %d bytes", len(b))
	}
	id, _, err := readIdentity(b[:pageBytes])
	if err != nil {
		return s, err
	}
	s.Replica, s.Created = id.replica, id.createdAt()
	if want := id.fileBytes(); int64(len(b)) != want {
		s.Damage = append(s.Damage, fmt.Sprintf("the file has %d bytes and should have %d", len(b), want))
		b = append(b, make([]byte, max(0, want-int64(len(b))))...)[:want]
	}
	j := &Journal{geometry: id.geometry, replica: id.replica, m: mapping{b: b}}
	if j.state, err = readState(b[:pageBytes]); err != nil {
		s.Damage = append(s.Damage, err.Error())
	}
	s.Forgotten = j.state.forgotten

	// In order only to learn what is damaged; the events are then searched everywhere.
	logged, err := j.scanLog()
	if err != nil {
		s.Damage = append(s.Damage, err.Error())
	}
	log := b[id.logAt():]
	for at := 0; at+recordHeader <= len(log); at += recordAlign {
		kind, n, crc := parseCommitWord(binary.NativeEndian.Uint64(log[at:]))
		if kind != kindEvent || !wholeRecord(log[at:], n, crc) {
			continue
		}
		seq := int64(binary.NativeEndian.Uint64(log[at+16:]))
		e, err := decodeEvent(log[at+recordHeader:at+n], id.replica, seq)
		if err != nil {
			s.Damage = append(s.Damage, fmt.Sprintf("event %d: %v", seq, err))
			continue
		}
		logged.tickets[binary.NativeEndian.Uint64(log[at+8:])] = true
		if seq > s.Forgotten {
			s.Events = append(s.Events, e)
		}
	}
	slices.SortFunc(s.Events, func(a, b contract.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	for k := 1; k < len(s.Events); k++ {
		if a, b := s.Events[k-1].Seq, s.Events[k].Seq; b > a+1 {
			s.Damage = append(s.Damage, fmt.Sprintf("events %d to %d are lost", a+1, b-1))
		}
	}
	s.openRequests(j, logged)
	return s, nil
}

func (s *Salvaged) openRequests(j *Journal, logged found) {
	for i := range j.geometry.slots {
		st, low, ok := j.slotState(i)
		if ok && st != slotSent {
			continue
		}
		ticket := j.m.load(j.slotAt(i) + slotTicket)
		in, err := j.readIntent(i)
		if !ok || err != nil || uint32(ticket)&0xffffff != low {
			s.Damage = append(s.Damage, fmt.Sprintf("slot %d is not readable", i))
			continue
		}
		if logged.tickets[ticket] {
			continue
		}
		o := openSlot{i: i, ticket: ticket, sent: true, intent: in}
		o.counts, o.exact = j.readCounts(i, ticket)
		s.Open = append(s.Open, o.event())
	}
}

// Damaged reports whether an error says that a journal's bytes cannot be trusted.
func Damaged(err error) bool {
	var d *DamageError
	return errors.As(err, &d)
}
