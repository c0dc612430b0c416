package journal

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func mustOpen(t *testing.T, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustClose(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

var small = Options{Slots: 4, LogBytes: 1 << 16}

func completeOne(t *testing.T, j *Journal, id string) {
	t.Helper()
	in := testIntent(id)
	slot, err := j.Begin(&in)
	if err != nil {
		t.Fatal(err)
	}
	ev := testEvent(&in, 1)
	if slot.Complete(&ev) == 0 {
		t.Fatal("not completed")
	}
}

func TestIdentityLivesAsLongAsTheFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "er")
	j := mustOpen(t, dir, small)
	name := j.Replica()
	if len(name) != 26 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("replica %q", name)
	}
	completeOne(t, j, "a")
	mustClose(t, j)
	j = mustOpen(t, dir, small)
	if j.Replica() != name || j.Last() != 1 {
		t.Errorf("reopened: %q, last %d", j.Replica(), j.Last())
	}
	mustClose(t, j)
	if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir, small)
	defer mustClose(t, j)
	if j.Replica() == name || j.Last() != 0 {
		t.Errorf("a new file: %q, last %d", j.Replica(), j.Last())
	}
	other := mustOpen(t, t.TempDir(), small)
	defer mustClose(t, other)
	if other.Replica() == j.Replica() {
		t.Error("two journals of one name")
	}
}

func TestLifeGrowsWithEachOpening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	last := uint64(0)
	open := func(o Options, how string) *Journal {
		j := mustOpen(t, dir, o)
		if j.Life() <= last {
			t.Errorf("%s: life %d after %d", how, j.Life(), last)
		}
		last = j.Life()
		return j
	}
	j := open(small, "new")
	if j.Life() != 1 {
		t.Errorf("the first life is %d", j.Life())
	}
	completeOne(t, j, "a")
	mustClose(t, j)
	j = open(small, "closed")
	j.Forget(1)
	mustClose(t, j)
	mustClose(t, open(Options{Slots: 8, LogBytes: 1 << 16}, "another size"))

	// A process that is killed writes nothing more: each opening must stand by itself, and
	// in both copies of the state, of which one may be damaged.
	b := inMemory(2, minLogBytes)
	for _, damaged := range []int{stateAt, stateAt2, 0} {
		before := mustAttach(t, b).Life()
		if damaged > 0 {
			b[damaged+9] ^= 0x40
		}
		if after := mustAttach(t, b).Life(); after <= before {
			t.Errorf("state at %d damaged: life %d after %d", damaged, after, before)
		}
	}
}

func TestOneWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := mustOpen(t, dir, small)
	if _, err := Open(dir, small); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "directory of its own") {
		t.Errorf("opened twice: %v", err)
	}
	// Even where somebody deletes the lock.
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, small); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice without lock file: %v", err)
	}
	completeOne(t, j, "a")
	mustClose(t, j)
	j = mustOpen(t, dir, small)
	if j.Last() != 1 || len(j.Aside()) != 0 {
		t.Errorf("last %d, aside %v", j.Last(), j.Aside())
	}
	mustClose(t, j)
}

func TestOtherSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	larger := Options{Slots: 8, LogBytes: 1 << 17}
	j := mustOpen(t, dir, small)
	name := j.Replica()
	completeOne(t, j, "a")
	mustClose(t, j)
	j = mustOpen(t, dir, larger)
	if s := j.Stats(); s.Slots != 4 || s.LogBytes != 1<<16 || s.Waiting != 1 {
		t.Errorf("resized with an event in it: %+v", s)
	}
	if err := j.Forget(1); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	j = mustOpen(t, dir, larger)
	defer mustClose(t, j)
	if s := j.Stats(); s.Slots != 8 || s.LogBytes != 1<<17 || s.Last != 1 || s.Forgotten != 1 {
		t.Errorf("not resized when empty: %+v", s)
	}
	if j.Replica() != name {
		t.Errorf("replica %q became %q", name, j.Replica())
	}
	completeOne(t, j, "b")
	if j.Last() != 2 {
		t.Errorf("the number after 1 is %d", j.Last())
	}
}

func TestDamagedFilesAreSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var logged bytes.Buffer
	o := small
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	j := mustOpen(t, dir, o)
	name := j.Replica()
	completeOne(t, j, "first")
	completeOne(t, j, "second")
	mustClose(t, j)

	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("up-second"))] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // found again, and counted, by the next opening
		j = mustOpen(t, dir, o)
		if j.Replica() == name || j.Last() != 0 || j.Stats().Aside != 1 || len(j.Aside()) != 1 {
			t.Fatalf("replica %q, last %d, %+v", j.Replica(), j.Last(), j.Stats())
		}
		mustClose(t, j)
	}
	s, err := Salvage(j.Aside()[0])
	if err != nil || s.Replica != name || len(s.Events) != 1 || s.Events[0].RequestID != "first" || len(s.Damage) == 0 {
		t.Errorf("salvaged %+v, %v", s, err)
	}
	if out := logged.String(); !strings.Contains(out, "ALERT") || !strings.Contains(out, "journal.corrupt-") || !strings.Contains(out, name) {
		t.Errorf("logged %s", out)
	}
	// Truncated, and twice within the clock's resolution.
	for n := 2; n <= 3; n++ {
		if err := os.Truncate(path, 10); err != nil {
			t.Fatal(err)
		}
		j = mustOpen(t, dir, o)
		if len(j.Aside()) != n {
			t.Errorf("aside %v", j.Aside())
		}
		mustClose(t, j)
	}
}

func TestNewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustClose(t, mustOpen(t, dir, small))
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := unsealed(b, identityWords)
	w[1] = 99
	copy(b[identityAt:], sealed(w))
	copy(b[identityAt2:], sealed(w))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, small); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
		t.Errorf("the file was changed: %v", err)
	}
}

// TestMachineRestart: pages that never reached the disk are lost with the machine, so a
// file from before must neither reuse numbers nor bill requests that had ended.
func TestMachineRestart(t *testing.T) {
	t.Parallel()
	boot := func(n uint64) Options {
		o := small
		o.boot = func() [2]uint64 { return [2]uint64{n} }
		return o
	}
	dir := t.TempDir()
	j := mustOpen(t, dir, boot(1))
	name := j.Replica()
	completeOne(t, j, "a")
	mustClose(t, j) // all on the disk
	j = mustOpen(t, dir, boot(2))
	if j.Replica() != name || j.Last() != 1 || len(j.Aside()) != 0 {
		t.Fatalf("closed before the restart: %q, last %d, aside %v", j.Replica(), j.Last(), j.Aside())
	}
	kill := func(j *Journal) {
		t.Helper()
		if err := errors.Join(j.detach(), j.lock.Close()); err != nil {
			t.Fatal(err)
		}
	}
	kill(j)
	j = mustOpen(t, dir, boot(2))
	if j.Replica() != name || j.Last() != 1 {
		t.Fatalf("killed without a restart: %q, last %d", j.Replica(), j.Last())
	}
	in := testIntent("b")
	slot, err := j.Begin(&in)
	if err != nil {
		t.Fatal(err)
	}
	slot.Sent()
	kill(j)
	j = mustOpen(t, dir, boot(3))
	if j.Replica() == name || j.Last() != 0 || len(j.Aside()) != 1 {
		t.Fatalf("killed by the restart: %q, last %d, aside %v", j.Replica(), j.Last(), j.Aside())
	}
	s, err := Salvage(j.Aside()[0])
	if err != nil || s.Replica != name || len(s.Events) != 1 || len(s.Open) != 1 || len(s.Damage) != 0 {
		t.Errorf("salvaged %+v, %v", s, err)
	}
	empty := j.Replica()
	kill(j)
	j = mustOpen(t, dir, boot(4))
	if j.Replica() == empty || len(j.Aside()) != 1 {
		t.Errorf("an empty one: %q, aside %v", j.Replica(), j.Aside())
	}
	mustClose(t, j)
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, o := range []Options{{Slots: -1}, {Slots: maxSlots + 1}, {LogBytes: -1}, {LogBytes: maxLogBytes + 1}} {
		if _, err := Open(dir, o); err == nil {
			t.Errorf("opened with %+v", o)
		}
	}
	if _, err := Open(dir, Options{LogBytes: 1 << 48}); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("a log of 256 TiB: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, freshName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left over: %v", err)
	}
	mustClose(t, mustOpen(t, dir, small)) // nothing in the way

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, small); err == nil {
		t.Error("opened in a file")
	}
}

// TestKilledWhileMade: what a kill leaves of a file that was being made is no journal.
func TestKilledWhileMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, freshName), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := mustOpen(t, dir, small)
	defer mustClose(t, j)
	if j.Last() != 0 || len(j.Aside()) != 0 {
		t.Errorf("last %d, aside %v", j.Last(), j.Aside())
	}
}
