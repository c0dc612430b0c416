package stripesim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// format is the version of the file.
const format = 1

// head is the file's first line.
type head struct {
	Format int    `json:"stripesim"`
	Tag    string `json:"tag"`
	Since  int64  `json:"since"` // what the clock said at the beginning
}

// entry is one line more: something that happened at a time of the account, after so many ids had
// been given.
type entry struct {
	At        int64      `json:"at"`
	IDs       int        `json:"ids"`
	Request   *request   `json:"request,omitempty"`
	Action    *action    `json:"action,omitempty"`
	Delivered *delivered `json:"delivered,omitempty"`
}

// delivered says that a webhook endpoint has taken an event, or that it was given up.
type delivered struct {
	Endpoint string `json:"endpoint"`
	Event    string `json:"event"`
}

// journal is the file of an account: one line of JSON after the other. Each is written at once,
// before what it says happens, so it survives the process; a machine that loses its power may take
// the last ones with it.
type journal struct {
	file  *os.File
	lines int
	// before is the file that was shortened. Its lock is kept: another process may have opened it.
	before *os.File
	// broken is why nothing can be written any more: a line behind a torn one would be lost.
	broken error
}

// openJournal opens a file, or makes it with head h, and returns its head and entries. The last
// line is cut if it was not written to its end. Two processes cannot have the same file.
func openJournal(path string, h head) (*journal, head, []entry, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, h, nil, err
	}
	j := &journal{file: file}
	h, entries, err := j.load(h)
	if err != nil {
		j.close()
		return nil, h, nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, h, entries, nil
}

func (j *journal) load(h head) (head, []entry, error) {
	if err := syscall.Flock(int(j.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return h, nil, errors.New("another process has it")
	}
	text, err := io.ReadAll(j.file)
	if err != nil {
		return h, nil, err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if err := j.file.Truncate(int64(whole)); err != nil {
		return h, nil, err
	}
	if _, err := j.file.Seek(int64(whole), io.SeekStart); err != nil {
		return h, nil, err
	}
	if whole == 0 {
		return h, nil, j.write(h)
	}
	var entries []entry
	for n, line := range bytes.Split(text[:whole-1], []byte("\n")) {
		if n == 0 {
			h = head{}
			if json.Unmarshal(line, &h) != nil || h.Format != format || h.Tag == "" {
				return h, nil, errors.New("it is no file of this version of the simulator")
			}
			continue
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return h, nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		entries = append(entries, e)
	}
	j.lines = len(entries)
	return h, entries, nil
}

// shorten puts a file with fewer entries in the place of this one, whole or not at all. Nothing has been
// appended since it was opened. The new one is made under a fixed name, which is nobody else's while this one
// is locked: what a process left that was killed here is overwritten.
func (j *journal) shorten(h head, entries []entry) error {
	if len(entries) == j.lines {
		return nil
	}
	path, err := filepath.EvalSymlinks(j.file.Name()) // a link stays one
	if err != nil {
		return fmt.Errorf("shorten it: %w", err)
	}
	file, err := os.OpenFile(path+".shorter", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("shorten it: %w", err)
	}
	shorter := &journal{file: file, lines: len(entries), before: j.file}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	err = errors.Join(err, shorter.write(h))
	for _, e := range entries {
		err = errors.Join(err, shorter.append(e))
	}
	if err = errors.Join(err, file.Sync()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		file.Close()
		os.Remove(file.Name())
		return fmt.Errorf("shorten it: %w", err)
	}
	*j = *shorter
	return nil
}

func (j *journal) append(e entry) error { return j.write(e) }

func (j *journal) write(v any) error {
	if j.broken != nil {
		return j.broken
	}
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("keep what happens: %w", err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		j.broken = fmt.Errorf("keep what happens: %w", err)
	}
	return j.broken
}

func (j *journal) close() {
	j.file.Close()
	if j.before != nil {
		j.before.Close()
	}
}
