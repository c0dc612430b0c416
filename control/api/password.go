package api

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// The cost of a new hash, OWASP's first choice for argon2id. Old hashes keep what they were
// made with, since it is part of them.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
)

// Bounds of what a stored hash may ask for, so that a damaged row cannot take all memory.
const (
	maxArgonMemory  = 256 * 1024
	maxArgonTime    = 16
	maxArgonThreads = 16
)

// The length of a password: at least in characters, at most in bytes.
const (
	MinPassword = 12
	MaxPassword = 256
)

// CheckPassword says what is wrong with a new password; nil if nothing is. email may be "".
func CheckPassword(password, email string) error {
	switch {
	case utf8.RuneCountInString(password) < MinPassword:
		return invalid("password", fmt.Sprintf("it must have at least %d characters", MinPassword))
	case len(password) > MaxPassword:
		return invalid("password", fmt.Sprintf("it may have %d bytes", MaxPassword))
	case !utf8.ValidString(password):
		return invalid("password", "it is not UTF-8")
	case email != "" && strings.Contains(strings.ToLower(password), strings.ToLower(email)):
		return invalid("password", "it may not contain the e-mail address")
	}
	return nil
}

// HashPassword returns the argon2id hash of a password in the usual encoding,
// $argon2id$v=19$m=…,t=…,p=…$salt$hash. It takes some 20 ms and 19 MiB.
func HashPassword(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // it never fails: see crypto/rand
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// passwordFits compares a password with a hash, in a time that does not depend on where
// they differ.
func passwordFits(password, encoded string) (bool, error) {
	var version int
	var memory, time uint32
	var threads uint8
	parts := strings.Split(encoded, "$")
	bad := errors.New("a stored password hash cannot be read")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, bad
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, bad
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil {
		return false, bad
	}
	if memory == 0 || memory > maxArgonMemory || time == 0 || time > maxArgonTime || threads == 0 || threads > maxArgonThreads {
		return false, bad
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(want) < 16 || len(want) > 64 {
		return false, bad
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(want))) // #nosec G115 -- at most 64, see above
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// passwords bounds how many hashes are computed at once: each takes a processor and memory,
// and strangers can ask for them.
type passwords struct {
	turns chan struct{}
	// nobody is the hash of a password that nobody knows, of the same cost as new ones: what
	// is compared when there is no such account.
	nobody string
}

func newPasswords(atOnce int) *passwords {
	return &passwords{turns: make(chan struct{}, atOnce), nobody: HashPassword(rand.Text())}
}

func (p *passwords) turn(ctx context.Context) (done func(), err error) {
	select {
	case p.turns <- struct{}{}:
		return func() { <-p.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return HashPassword(password), nil
}

// check compares a password with the hash of an account, or, with "", of nobody: that takes
// as long, and is always false.
func (p *passwords) check(ctx context.Context, password, encoded string) (bool, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	if encoded == "" {
		_, err := passwordFits(password, p.nobody)
		return false, err
	}
	return passwordFits(password, encoded)
}
