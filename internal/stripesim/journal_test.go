package stripesim

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fill makes a journal of three entries.
func fill(t *testing.T, path string) {
	t.Helper()
	j, _, _, err := openJournal(path, head{Format: format, Tag: "tag"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	for n := range 3 {
		if err := j.append(entry{At: int64(n)}); err != nil {
			t.Fatal(err)
		}
	}
}

// shortenTo shortens a journal to its last entry, and wants it to be what is at path then, alone, and locked.
func shortenTo(t *testing.T, path string) {
	t.Helper()
	j, h, entries, err := openJournal(path, head{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if err := j.shorten(h, entries[2:]); err != nil {
		t.Fatal(err)
	}
	if err := j.append(entry{At: 7}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Count(text, []byte("\n")) != 3 || !strings.HasSuffix(string(text), "{\"at\":2,\"ids\":0}\n{\"at\":7,\"ids\":0}\n") {
		t.Errorf("in the file is %q, %v", text, err)
	}
	if _, _, _, err := openJournal(path, head{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, f.Name())
	}
	return all
}

// A process that was killed while it shortened leaves a file, which the next one takes.
func TestJournalShortenedAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	for range 2 {
		os.Remove(path)
		fill(t, path)
		// More than there will be: a rest would be seen.
		if err := os.WriteFile(path+".shorter", bytes.Repeat([]byte("torn\n"), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		shortenTo(t, path)
		if all := names(t, dir); !slices.Equal(all, []string{"journal"}) {
			t.Errorf("there are %q", all)
		}
	}
}

// The file may be elsewhere, behind a link: it is shortened there, and the link stays.
func TestJournalBehindLink(t *testing.T) {
	t.Parallel()
	here, there := t.TempDir(), t.TempDir()
	link, target := filepath.Join(here, "link"), filepath.Join(there, "journal")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	fill(t, link) // which makes the file
	shortenTo(t, link)
	if to, err := os.Readlink(link); err != nil || to != target {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if a, b := names(t, here), names(t, there); !slices.Equal(a, []string{"link"}) || !slices.Equal(b, []string{"journal"}) {
		t.Errorf("there are %q and %q", a, b)
	}
	if info, err := os.Lstat(target); err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
		t.Errorf("behind the link is %v, %v", info, err)
	}
}
