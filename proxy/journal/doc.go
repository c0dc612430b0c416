// Package journal keeps what a token-proxy must not forget when it is killed: the
// requests in flight, how far each has come, and the events of those that ended. Both
// the shipping of events and the settling of the limit read from it, so nothing else
// of the process needs to survive.
//
// # Promise
//
// After SIGKILL at any instruction, Open finds
//
//   - every event whose Complete returned, once, unchanged and under the same number;
//   - one event for every request that was Sent and neither completed nor abandoned, with
//     at least the counts of the last Advance that returned;
//   - no event for a request that was never Sent, unless it was completed;
//   - numbers from 1 without gaps, never used for two requests, over all lives of the file.
//
// A call that was under way counts as made or as not made, never as half made. What
// the machine loses, the journal loses: it is a mapped file, and its pages reach the
// disk when the kernel likes. A restart of the machine is noticed (by its boot id), and
// the file is then set aside, because it may be older than what was shipped from it.
//
// # Use
//
// One Slot per request, in this order; only Begin can fail:
//
//	s, err := j.Begin(&intent)   // before the upstream is contacted; ErrFull: answer 503
//	s.Sent()                     // before the first byte goes to the upstream
//	s.Advance(…)                 // before the bytes that it counts go to the client
//	s.Complete(&event)           // or s.Abandon(), if nothing is to be billed
//
// A request that goes to another upstream is abandoned and begun again; the other order
// could bill it twice. The limit must not be charged anywhere but from the events.
//
// A reader ships and settles:
//
//	after := j.Forgotten()
//	for j.Wait(ctx, after) == nil {
//		events, err := j.Next(after, 500)
//		// send them; advance after
//	}
//	j.Forget(n) // all up to n are committed in Postgres and settled in Redis
//
// After Open, everything above Forgotten must be sent again; the receivers know numbers
// that they have. Several readers may be at different places.
//
// # Concurrency
//
// Everything is safe for concurrent use. Begin, Sent, Advance and Complete do not
// allocate and make no system call. Two requests meet only in a lock held for well under a microsecond,
// to take a slot and to append a record. Stores into the file can wait for the kernel while it
// writes the same page to a disk; a directory in memory (emptyDir with medium Memory)
// survives the same deaths, of the process and the container, and never waits.
//
// # Directory
//
// A directory belongs to one process at a time: "journal.lock" and the file itself are
// locked (flock), the next process gets ErrLocked. "journal" is the file, all its blocks
// allocated when it is made, so that a full disk is an error of Open and not a SIGBUS
// later. The replica's name is made with the file, and ends with it. Never copy the file
// to run two, and never truncate it under a running process.
//
// Bytes that cannot be trusted end no service: Open renames the file to
// "journal.corrupt-<time>" ("journal.stale-<time>" after a restart of the machine; removed if it
// held nothing), logs ALERT, and makes a new one with a new name. Salvage reads what is left of it;
// its events can be shipped under their own names any number of times. Stats counts the
// files until an operator removes them. A file of a newer version is not touched: Open fails.
//
// Another size in Options is taken over when the journal is empty, and name and numbers
// go on; otherwise it keeps its size until then.
//
// # Format, version 1
//
// Numbers are 64-bit words in the machine's byte order, unless said otherwise.
//
//	0      identity: magic, version, slots, log bytes, time made, replica (32 bytes), checksum
//	1024   identity again
//	2048   state: write number, epoch, forgotten, tail, clean, boot (16 bytes), checksum
//	3072   state: in turn with the one before; the higher write number holds
//	4096   slots, 1024 bytes each
//	…      log, to the end of the file
//
//	slot   +0 state word: state (8 bits) | ticket (low 24 bits) | checksum (32 bits)
//	       +8 the same again
//	       +16 length (32 bits) | CRC-32C (32 bits) of the intent and the ticket
//	       +24 ticket: epoch (24 bits) | number within it (40 bits)
//	       +32, +88 counts: being written, write number and relayed, prompt, cached,
//	           completion, reasoning, checksum with the ticket
//	       +144 intent
//
//	log    records, each a multiple of 8 bytes, never split at the end of the log:
//	       +0 commit word: length (24 bits) | kind (8 bits) | CRC-32C (32 bits)
//	       +8 ticket, +16 number, +24 payload, zeros
//	       then a word of zeros, where the next record will be
//
// Intents and payloads are a version byte, then varints and strings with a length byte,
// in the order of codec.go. A reader must know each version that an older build left.
//
// # Why it holds
//
// A killed process leaves the stores that it made, each thread's in its own order. So
// each step is some stores that do not count yet, and then one atomic store that makes
// them count:
//
//   - Begin fills a free slot and stores the state "open". Sent is that store alone.
//   - Advance writes the older of two copies of the counts, marked as being written
//     meanwhile. Recovery takes the newer one that is whole.
//   - Complete writes the record beyond the end of the log, the new end (a zero word)
//     first. The store over the old end, the commit word, makes it an event. Only then is the
//     slot freed: an open slot whose ticket is in the log had ended. And only after that do
//     readers see the event, so it cannot be forgotten, and with it that proof, while its
//     slot looks open.
//   - Forget writes one of two copies of the state, and only then gives the room away.
//   - Recovery completes the open requests by the same steps, so it may be killed too.
//
// Complete cannot fail for lack of room: Begin refuses unless one record of the largest
// size for each open slot, the padding of one lap and the zero word fit beside what waits.
//
// Each word that decides something has a checksum that every change of one byte breaks.
// Where a second copy exists, it repairs. Damaged counts become the request's bounds, since
// at most what was reserved and at least what was relayed is then still true. Anything else, such
// as a damaged record, may not be skipped: numbers have no gaps. That is when the file is set aside.
//
// # Where this differs from what was first planned
//
//   - A ticket that is never used twice, instead of slot index and generation, says which
//     request a record ended; a generation could come round again while its log is stuck.
//   - The end of the log is a zero word rather than the first record that does not fit. Else
//     a damaged record would look like the end, and all after it would be lost silently.
//   - What is fixed at admission is copied from intent to event, not given twice.
//   - The boot id, for the reason above: with an old file numbers would be used twice, and the
//     ledger would drop one of the two events.
package journal
