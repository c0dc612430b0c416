package journal

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files in a journal's directory.
const (
	fileName      = "journal"
	lockName      = "journal.lock"
	freshName     = "journal.new" // being made; left over only by a kill
	corruptPrefix = "journal.corrupt-"
	stalePrefix   = "journal.stale-"
)

// Open opens the journal in dir for this process alone, and makes directory and
// journal where they are missing. It returns once the requests that a dead process left
// open have become events. A file that is damaged or stale is set aside under another
// name, with an error in the log and in Stats, and a new journal with a new replica name
// is made: see Aside and Salvage.
func Open(dir string, o Options) (*Journal, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := flock(lock); err != nil {
		return nil, fmt.Errorf("open journal in %s: %w", dir, errors.Join(err, lock.Close()))
	}
	j, err := openLocked(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open journal in %s: %w", dir, errors.Join(err, closeLocked(lock)))
	}
	j.lock = lock
	if j.aside, err = listAside(dir); err != nil {
		return nil, fmt.Errorf("open journal in %s: %w", dir, errors.Join(err, j.Close()))
	}
	if len(j.recovered) > 0 || j.repaired > 0 {
		o.Logger.Warn("journal recovered", "dir", dir, "replica", j.replica, "recovered", len(j.recovered), "repaired", j.repaired)
	}
	return j, nil
}

func openLocked(dir string, o Options) (*Journal, error) {
	path := filepath.Join(dir, fileName)
	if err := os.Remove(filepath.Join(dir, freshName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	wanted := geometry{slots: o.Slots, logBytes: o.LogBytes}
	j, err := attachFile(path, o)
	var damage *DamageError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(dir, newIdentity(wanted, o), state{}); err != nil {
			return nil, err
		}
		return attachFile(path, o)
	case errors.As(err, &damage):
		if err := setAside(path, damage, o); err != nil {
			return nil, err
		}
		if err := create(dir, newIdentity(wanted, o), state{}); err != nil {
			return nil, err
		}
		return attachFile(path, o)
	case err != nil || j.geometry == wanted:
		return j, err
	}
	if !j.empty() {
		o.Logger.Warn("journal keeps its size until it is empty when opened", "dir", dir, "slots", j.geometry.slots, "log_bytes", j.logBytes)
		return j, nil
	}
	id := identity{geometry: wanted, replica: j.replica, created: o.Now().UnixMicro()}
	st := state{epoch: j.epoch, forgotten: j.state.forgotten}
	if err := j.detach(); err != nil {
		return nil, err
	}
	if err := create(dir, id, st); err != nil {
		return nil, err
	}
	return attachFile(path, o)
}

// empty reports whether nothing would be lost with the file.
func (j *Journal) empty() bool { return j.open() == 0 && j.state.forgotten == j.seq }

// detach gives a journal up that was just attached and that nobody uses.
func (j *Journal) detach() error {
	return errors.Join(unmap(j.m.b), closeLocked(j.file))
}

func newIdentity(g geometry, o Options) identity {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	name := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))
	return identity{geometry: g, replica: name, created: o.Now().UnixMicro()}
}

// create makes a journal under another name, with all its blocks, and only then gives
// it its own.
func create(dir string, id identity, st state) (err error) {
	fresh := filepath.Join(dir, freshName)
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("make %s of %d bytes: %w", fresh, id.fileBytes(), errors.Join(err, f.Close(), os.Remove(fresh)))
		}
	}()
	if err := allocate(f, id.fileBytes()); err != nil {
		return err
	}
	if _, err := f.WriteAt(newHeader(id, st), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(dir, fileName)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory last; file systems that cannot are let be.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}

func attachFile(path string, o Options) (j *Journal, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	var m mapping
	defer func() {
		if err != nil {
			err = errors.Join(err, unmap(m.b), closeLocked(f))
		}
	}()
	// The lock file alone would do, were it not that it can be deleted.
	if err := flock(f); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	page := make([]byte, pageBytes)
	if _, err := f.ReadAt(page, 0); errors.Is(err, io.EOF) {
		return nil, damagef("header", "the file has only %d bytes", info.Size())
	} else if err != nil {
		return nil, err
	}
	id, _, err := readIdentity(page)
	if err != nil {
		return nil, err
	}
	if info.Size() != id.fileBytes() {
		return nil, damagef("header", "the file has %d bytes and should have %d", info.Size(), id.fileBytes())
	}
	// Whoever copied the file may have left holes, and a store into a hole of a full
	// disk kills the process.
	if err := allocate(f, id.fileBytes()); err != nil {
		return nil, err
	}
	if m.b, err = mapFile(f, id.fileBytes()); err != nil {
		return nil, err
	}
	m.mapped = true
	if j, err = attach(m, o, o.boot()); err != nil {
		return nil, err
	}
	j.file, j.dir = f, filepath.Dir(path)
	return j, nil
}

// setAside renames a journal that cannot be used, or removes it where it holds nothing.
func setAside(path string, damage *DamageError, o Options) error {
	prefix := corruptPrefix
	if damage.Stale {
		prefix = stalePrefix
	}
	s, err := Salvage(path)
	if err == nil && damage.Stale && len(s.Events) == 0 && len(s.Open) == 0 && len(s.Damage) == 0 {
		o.Logger.Warn("journal was empty and is replaced", "path", path, "replica", s.Replica, "reason", damage.Reason)
		return os.Remove(path)
	}
	name := prefix + o.Now().UTC().Format("20060102T150405.000000000Z")
	to := filepath.Join(filepath.Dir(path), name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-%d", name, n))
	}
	if err := os.Rename(path, to); err != nil {
		return err
	}
	o.Logger.Error("ALERT: journal set aside; ship what Salvage reads from it, then declare its replica lost and remove it",
		"path", to, "replica", s.Replica, "reason", damage.Error(), "readable_events", len(s.Events), "open_requests", len(s.Open))
	return syncDir(filepath.Dir(path))
}

// listAside returns the journals that were set aside in dir, in order.
func listAside(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), corruptPrefix) || strings.HasPrefix(e.Name(), stalePrefix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// createdAt is when a journal was made.
func (id identity) createdAt() time.Time { return time.UnixMicro(id.created).UTC() }
