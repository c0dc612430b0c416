//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flock locks a file until it is closed or the process is gone.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("%w: %s is locked; each process needs a directory of its own", ErrLocked, f.Name())
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// closeLocked gives a lock up and closes the file. Closing alone is not enough: a child
// that was forked and has not called exec yet shares the lock for that moment.
func closeLocked(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_UN)
	return errors.Join(err, f.Close())
}

func mapFile(f *os.File, size int64) ([]byte, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return b, nil
}

func unmap(b []byte) error {
	if b == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.Munmap(b))
}

// syncMapping returns once the bytes, which start at a page, are on the disk.
func syncMapping(b []byte) error {
	return os.NewSyscallError("msync", unix.Msync(b, unix.MS_SYNC))
}

// allocate gives a file all its blocks, so that no store into it can fail for lack of
// room. What it has already stays as it is.
func allocate(f *os.File, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	// Asked first, since some file systems fill the disk before they give up.
	if missing := size - int64(st.Blocks)*512; missing > 0 {
		free, err := freeBytes(f)
		if err != nil {
			return err
		}
		if uint64(missing) > free {
			return fmt.Errorf("%d bytes are missing and %d are free: %w", missing, free, unix.ENOSPC)
		}
	}
	return preallocate(f, size)
}

// writeZeros allocates where the file system has no call for it, from the end that the
// file has now.
func writeZeros(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := info.Size(); at < size; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// bootID names the machine's present boot; zero where that cannot be known.
func bootID() [2]uint64 {
	name := bootName()
	if name == "" {
		return [2]uint64{}
	}
	sum := sha256.Sum256([]byte(name))
	return [2]uint64{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}
