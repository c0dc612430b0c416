package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// KeySize is how many bytes a key has.
const KeySize = 32

const (
	sealedVersion = 1
	keyIDSize     = 4
	sealedHead    = 1 + keyIDSize
)

// ErrSealed says that a sealed secret cannot be opened.
var ErrSealed = errors.New("cannot be opened")

// Keys seals secrets that are kept, by AES-256-GCM, and opens them. It is safe for concurrent
// use. The zero value has no key.
type Keys struct{ ring []key }

type key struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
}

// ParseKeys reads keys of 32 bytes in hex or base64, separated by commas: the first one seals, all
// open. So keys are replaced by putting a new one in front. The text of an error shows no key.
func ParseKeys(text string) (*Keys, error) {
	k := &Keys{}
	for i, field := range strings.Split(text, ",") {
		raw, err := parseKey(strings.TrimSpace(field))
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		// It tells nothing of a random key.
		sum := sha256.Sum256(append([]byte("id of a key that seals\x00"), raw...))
		next := key{id: [keyIDSize]byte(sum[:]), aead: aead}
		for _, other := range k.ring {
			if other.id == next.id {
				return nil, fmt.Errorf("key %d is there twice", i+1)
			}
		}
		k.ring = append(k.ring, next)
	}
	return k, nil
}

func parseKey(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("it is empty; it must be 32 bytes in hex or base64, as of \"openssl rand -base64 32\"")
	}
	raw := decodeKey(text)
	switch {
	case raw == nil:
		return nil, errors.New("it is not 32 bytes in hex or base64, as of \"openssl rand -base64 32\"")
	case bytes.Count(raw, raw[:1]) == KeySize:
		return nil, errors.New("all of its bytes are the same; it must be random")
	}
	return raw, nil
}

// decodeKey returns nil for what is no key.
func decodeKey(text string) []byte {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == KeySize {
		return raw
	}
	text = strings.TrimRight(text, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.DecodeString(text); err == nil && len(raw) == KeySize {
			return raw
		}
	}
	return nil
}

// Seal encrypts a secret. Only with the same place, such as the id of a row and the name of a
// column, it can be opened again: what was sealed for another place is not.
func (k *Keys) Seal(plain Text, place ...string) ([]byte, error) {
	if k == nil || len(k.ring) == 0 {
		return nil, errors.New("seal a secret: there is no key")
	}
	first := k.ring[0]
	head := append([]byte{sealedVersion}, first.id[:]...)
	out := make([]byte, sealedHead+first.aead.NonceSize(), sealedHead+first.aead.NonceSize()+len(plain)+first.aead.Overhead())
	copy(out, head)
	nonce := out[sealedHead:]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal a secret: %w", err)
	}
	return first.aead.Seal(out, nonce, []byte(plain), bound(head, place)), nil
}

// Open decrypts what Seal made for the same place; otherwise the error is ErrSealed.
func (k *Keys) Open(sealed []byte, place ...string) (Text, error) {
	if len(sealed) < sealedHead || sealed[0] != sealedVersion {
		return "", fmt.Errorf("open a secret: it %w: it is of no form that is known", ErrSealed)
	}
	head, rest := sealed[:sealedHead], sealed[sealedHead:]
	if k != nil {
		for _, key := range k.ring {
			if !bytes.Equal(key.id[:], head[1:]) || len(rest) < key.aead.NonceSize() {
				continue
			}
			n := key.aead.NonceSize()
			plain, err := key.aead.Open(nil, rest[:n], rest[n:], bound(head, place))
			if err != nil {
				return "", fmt.Errorf("open a secret: it %w: it was changed, or sealed for another place", ErrSealed)
			}
			return Text(plain), nil
		}
	}
	return "", fmt.Errorf("open a secret: it %w: none of the keys sealed it (key %x)", ErrSealed, head[1:])
}

// Newest reports whether it was sealed with the first key.
func (k *Keys) Newest(sealed []byte) bool {
	return k != nil && len(k.ring) > 0 && len(sealed) >= sealedHead && bytes.Equal(k.ring[0].id[:], sealed[1:sealedHead])
}

// bound is what is authenticated beside the secret: each part with its length, so that no
// two places look alike.
func bound(head []byte, place []string) []byte {
	out := bytes.Clone(head)
	for _, part := range place {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}
