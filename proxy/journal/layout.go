package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// The file: one page of header, then the slots, then the log. Numbers are in the
// machine's own byte order, since a journal never leaves its machine; the magic
// number tells another order.
const (
	magic         = 0x6f636a6f75726e31 // "ocjourn1"
	formatVersion = 1

	pageBytes   = 4096
	identityAt  = 0 // identity, twice
	identityAt2 = 1024
	stateAt     = 2048 // state, in turn here and there
	stateAt2    = 3072
	slotsAt     = pageBytes
	slotBytes   = 1024
)

// A slot: its state word twice, the intent, and two copies of the counts.
const (
	slotState     = 0
	slotMirror    = 8
	slotIntentLen = 16 // length | crc32c << 32
	slotTicket    = 24
	slotCounts    = 32 // two copies of countsBytes
	countsBytes   = 56
	slotIntent    = slotCounts + 2*countsBytes
)

// A record of the log: commit word, ticket, seq, payload, zeros up to a multiple of 8.
const (
	recordHeader = 24
	recordAlign  = 8
	recordMax    = (recordHeader + eventMax + recordAlign - 1) / recordAlign * recordAlign
	// logSlack is what the log keeps free beside one record for each open slot: the
	// padding at one wrap-around, and the zero word that ends the log.
	logSlack = recordMax + 8

	kindEvent = 0xE5
	kindPad   = 0xD9
)

// castagnoli is the CRC-32C table, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// geometry is the size of a journal's parts.
type geometry struct {
	slots    int
	logBytes int64
}

func (g geometry) logAt() int64       { return slotsAt + int64(g.slots)*slotBytes }
func (g geometry) fileBytes() int64   { return g.logAt() + g.logBytes }
func (g geometry) slotAt(i int) int64 { return slotsAt + int64(i)*slotBytes }
func (g geometry) countsAt(i int, n uint64) int64 {
	return g.slotAt(i) + slotCounts + int64(n&1)*countsBytes
}

// valid reports whether a geometry read from a file can be true.
func (g geometry) valid() bool {
	return g.slots > 0 && g.slots <= maxSlots && g.logBytes >= minLogBytes && g.logBytes <= maxLogBytes && g.logBytes%pageBytes == 0
}

// identity is the part of the header that never changes.
type identity struct {
	geometry
	replica string // replicaLen characters
	created int64  // Unix microseconds
}

const identityWords = 10

func (id identity) encode() []byte {
	var w [identityWords]uint64
	var name [replicaMax]byte
	copy(name[:], id.replica)
	w[0], w[1], w[2], w[3], w[4] = magic, formatVersion, uint64(id.slots), uint64(id.logBytes), uint64(id.created)
	for i := range 4 {
		w[5+i] = binary.NativeEndian.Uint64(name[8*i:])
	}
	return sealed(w[:])
}

const replicaMax = 32

// decodeIdentity reads one copy. ok is false where the copy is damaged.
func decodeIdentity(b []byte) (id identity, version uint64, ok bool) {
	w, ok := unsealed(b, identityWords)
	if !ok || w[0] != magic {
		return id, 0, false
	}
	var name [replicaMax]byte
	for i := range 4 {
		binary.NativeEndian.PutUint64(name[8*i:], w[5+i])
	}
	n := 0
	for n < len(name) && name[n] != 0 {
		n++
	}
	id.slots, id.logBytes, id.created, id.replica = int(w[2]), int64(w[3]), int64(w[4]), string(name[:n])
	return id, w[1], w[1] != formatVersion || (id.valid() && n > 0)
}

// readIdentity reads the identity from a header page, and how many of its two copies
// are whole.
func readIdentity(page []byte) (id identity, whole int, err error) {
	for _, at := range []int{identityAt2, identityAt} {
		got, version, ok := decodeIdentity(page[at:])
		if !ok {
			continue
		}
		if version != formatVersion {
			return id, 0, fmt.Errorf("%w %d; this program knows version %d: start the program that wrote it until it is empty, or move the file aside", ErrVersion, version, formatVersion)
		}
		id = got
		whole++
	}
	if whole == 0 {
		return id, 0, damagef("header", "neither copy of the identity is readable")
	}
	return id, whole, nil
}

// state is the part of the header that changes. It is written in turn to two places,
// so that one of them is always whole.
type state struct {
	n         uint64 // counts the writes; the higher one holds
	epoch     uint64 // counts the openings
	forgotten int64
	tail      uint64    // offset in the log, counted over all laps, of the first event after forgotten
	clean     bool      // everything was written to the disk and the journal closed
	boot      [2]uint64 // the machine's boot during which the journal was last open; zero if unknown
}

const stateWords = 8

func (s state) encode() []byte {
	w := [stateWords]uint64{s.n, s.epoch, uint64(s.forgotten), s.tail, 0, s.boot[0], s.boot[1]}
	if s.clean {
		w[4] = 1
	}
	return sealed(w[:])
}

func readState(page []byte) (s state, err error) {
	found := false
	for _, at := range []int{stateAt, stateAt2} {
		w, ok := unsealed(page[at:], stateWords)
		if !ok || found && w[0] <= s.n {
			continue
		}
		found = true
		s = state{n: w[0], epoch: w[1], forgotten: int64(w[2]), tail: w[3], clean: w[4] == 1, boot: [2]uint64{w[5], w[6]}}
	}
	if !found {
		return s, damagef("header", "neither copy of the state is readable")
	}
	return s, nil
}

func (s state) place() int64 {
	if s.n&1 == 0 {
		return stateAt
	}
	return stateAt2
}

// sealed encodes words, the last of which becomes the checksum of the others.
func sealed(w []uint64) []byte {
	last := len(w) - 1
	w[last] = checksum(sealSeed, w[:last])
	b := make([]byte, 0, 8*len(w))
	for _, v := range w {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func unsealed(b []byte, n int) ([]uint64, bool) {
	w := make([]uint64, n)
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return w, w[n-1] == checksum(sealSeed, w[:n-1])
}

const sealSeed = 0x9e3779b97f4a7c15

// checksum chains a bijection over the words: a change of one word, whichever and
// however, always changes the result.
func checksum(seed uint64, w []uint64) uint64 {
	h := seed
	for _, v := range w {
		h = mix64(h ^ v)
	}
	return h
}

// mix64 is a bijection that spreads every bit (the finaliser of SplitMix64).
func mix64(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// mix32 is a bijection (the finaliser of MurmurHash3).
func mix32(h uint32) uint32 {
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}

// The states of a slot.
const (
	slotFree = 0x11
	slotOpen = 0x22
	slotSent = 0x44
)

// stateWord is one word, and so one store: the slot's state, the low 24 bits of its
// ticket, and a checksum that knows the slot.
func stateWord(i int, st uint8, ticket uint64) uint64 {
	low := uint32(st) | uint32(ticket)<<8
	return uint64(low) | uint64(mix32(low^mix32(uint32(i)+1)))<<32
}

// parseStateWord returns ok false where the word is damaged.
func parseStateWord(i int, w uint64) (st uint8, low24 uint32, ok bool) {
	st, low24 = uint8(w), uint32(w)>>8
	ok = w>>32 == uint64(mix32(uint32(w)^mix32(uint32(i)+1))) && (st == slotFree || st == slotOpen || st == slotSent)
	return st, low24, ok
}

// commitWord makes a record count. It is never zero, nor one changed byte away from
// zero: kind and length are in different bytes.
func commitWord(kind uint8, length int, crc uint32) uint64 {
	return uint64(length) | uint64(kind)<<24 | uint64(crc)<<32
}

func parseCommitWord(w uint64) (kind uint8, length int, crc uint32) {
	return uint8(w >> 24), int(w & 0xffffff), uint32(w >> 32)
}

// padCRC binds the padding before a wrap-around to its place and lap.
func padCRC(off uint64, length int) uint32 {
	h := mix64(off ^ bits.RotateLeft64(uint64(length), 40))
	return uint32(h) ^ uint32(h>>32)
}
