package contract

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"regexp"
	"sync"
)

// A proxy token is "ocp_", 30 base62 characters of randomness (178 bits) and
// six base62 characters of CRC-32 (IEEE) over those 30, most significant digit
// first. The layout follows GitHub's token format of 2021: the checksum lets a
// malformed token be refused without any look-up, and TokenPattern lets secret
// scanners recognise one.
const (
	TokenPrefix    = "ocp_"
	tokenRandomLen = 30
	tokenSumLen    = 6
	// TokenLen is the length of every proxy token in bytes.
	TokenLen = len(TokenPrefix) + tokenRandomLen + tokenSumLen
)

// TokenPattern is published for secret scanners.
var TokenPattern = regexp.MustCompile(`\bocp_[0-9A-Za-z]{36}\b`)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Token is a raw proxy token. It exists in the customer's Kubernetes Secret and
// in the one answer that created it; everywhere else use its Digest. Printing a
// Token with any fmt verb, or encoding it, shows only a redacted form; Reveal
// returns the secret.
type Token struct{ secret string }

// ErrMalformedToken says that a string is not a proxy token. It never contains
// the string.
var ErrMalformedToken = errors.New("malformed proxy token")

// NewToken mints a token from random, which must be crypto/rand.Reader outside
// tests. Rejection sampling keeps the 62 characters equally likely.
func NewToken(random io.Reader) (Token, error) {
	if random == nil {
		random = rand.Reader
	}
	var out [TokenLen]byte
	n := copy(out[:], TokenPrefix)
	var buf [64]byte
	for n < len(TokenPrefix)+tokenRandomLen {
		if _, err := io.ReadFull(random, buf[:]); err != nil {
			return Token{}, fmt.Errorf("mint proxy token: %w", err)
		}
		for _, b := range buf {
			if b < 4*62 && n < len(TokenPrefix)+tokenRandomLen {
				out[n] = base62[b%62]
				n++
			}
		}
	}
	putSum(out[n:], crc32.ChecksumIEEE(out[len(TokenPrefix):n]))
	return Token{string(out[:])}, nil
}

// ParseToken checks the shape and the checksum of s.
func ParseToken(s string) (Token, error) {
	if !PlausibleToken([]byte(s)) {
		return Token{}, ErrMalformedToken
	}
	return Token{s}, nil
}

// PlausibleToken reports whether b has the shape and checksum of a proxy token.
// It allocates nothing.
func PlausibleToken(b []byte) bool {
	if len(b) != TokenLen || string(b[:len(TokenPrefix)]) != TokenPrefix {
		return false
	}
	body := b[len(TokenPrefix) : len(TokenPrefix)+tokenRandomLen]
	for _, c := range body {
		if !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z') {
			return false
		}
	}
	var sum [tokenSumLen]byte
	putSum(sum[:], crc32.ChecksumIEEE(body))
	return string(b[len(TokenPrefix)+tokenRandomLen:]) == string(sum[:])
}

func putSum(dst []byte, sum uint32) {
	for i := tokenSumLen - 1; i >= 0; i-- {
		dst[i] = base62[sum%62]
		sum /= 62
	}
}

// Reveal returns the secret text. Call it only to hand the token to its owner.
func (t Token) Reveal() string { return t.secret }

// Hint returns the last four characters, for lists and support.
func (t Token) Hint() string {
	if len(t.secret) < 4 {
		return ""
	}
	return t.secret[len(t.secret)-4:]
}

// String redacts.
func (t Token) String() string { return "ocp_[redacted]" }

// GoString redacts.
func (t Token) GoString() string { return "contract.Token{[redacted]}" }

// Format redacts for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText redacts.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Digest is HMAC-SHA-256(pepper, token): how a token is known at rest, in key
// names and between our processes. A random token of 178 bits has nothing to
// brute-force, so no slow hash is wanted.
type Digest [sha256.Size]byte

// Hex returns the digest as 64 lower-case hexadecimal characters.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what Hex wrote.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("parse token digest: want %d hexadecimal characters, got %d", 2*len(d), len(s))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return d, fmt.Errorf("parse token digest: %w", err)
	}
	return d, nil
}

// MinPepperLen is the least length of a pepper in bytes.
const MinPepperLen = 16

// Hasher computes digests under one pepper. It is safe for concurrent use and
// allocates nothing per digest once warm.
type Hasher struct{ pool sync.Pool }

type hashState struct {
	mac hash.Hash
	in  []byte
	out []byte
}

// NewHasher returns a Hasher for pepper, which must have at least MinPepperLen
// bytes and is shared by the control plane and every proxy.
func NewHasher(pepper []byte) (*Hasher, error) {
	if len(pepper) < MinPepperLen {
		return nil, fmt.Errorf("token pepper: want at least %d bytes, got %d", MinPepperLen, len(pepper))
	}
	own := append([]byte(nil), pepper...)
	h := &Hasher{}
	h.pool.New = func() any {
		return &hashState{mac: hmac.New(sha256.New, own), in: make([]byte, 0, TokenLen), out: make([]byte, 0, sha256.Size)}
	}
	return h, nil
}

// Digest returns the digest of a raw token.
func (h *Hasher) Digest(token []byte) Digest {
	st := h.pool.Get().(*hashState)
	st.mac.Reset()
	st.in = append(st.in[:0], token...)
	_, _ = st.mac.Write(st.in)
	st.out = st.mac.Sum(st.out[:0])
	var d Digest
	copy(d[:], st.out)
	clear(st.in)
	h.pool.Put(st)
	return d
}
