package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// fakeKeyBytes are those of a key that is no secret.
func fakeKeyBytes(n byte) []byte {
	b := make([]byte, secret.KeySize)
	for i := range b {
		b[i] = n + byte(i)
	}
	return b
}

func parse(t *testing.T, text string) *secret.Keys {
	t.Helper()
	k, err := secret.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	older, newer := hex.EncodeToString(fakeKeyBytes(1)), base64.StdEncoding.EncodeToString(fakeKeyBytes(2))
	first := parse(t, older)
	sealed, err := first.Seal(fake, "b1", "column")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := first.Open(sealed, "b1", "column"); err != nil || got != fake {
		t.Fatalf("%q, %v", got.Reveal(), err)
	}
	if other, err := first.Seal(fake, "b1", "column"); err != nil || bytes.Equal(other, sealed) || bytes.Contains(sealed, []byte(fake)) {
		t.Errorf("the same twice, or not sealed: %v", err)
	}
	// For another place it does not open, nor changed by a bit anywhere, nor cut.
	for _, place := range [][]string{{"b2", "column"}, {"b1", "other"}, {"b1"}, {"b1c", "olumn"}, {"b1column"}, {}} {
		if _, err := first.Open(sealed, place...); !errors.Is(err, secret.ErrSealed) {
			t.Errorf("%q: %v", place, err)
		}
	}
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := first.Open(bad, "b1", "column"); !errors.Is(err, secret.ErrSealed) || got != "" {
			t.Errorf("bit %d: %v", i, err)
		}
	}
	for n := range sealed {
		if _, err := first.Open(sealed[:n], "b1", "column"); !errors.Is(err, secret.ErrSealed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// The newest key seals, all open.
	both := parse(t, newer+" , "+older)
	if got, err := both.Open(sealed, "b1", "column"); err != nil || got != fake || both.Newest(sealed) || !first.Newest(sealed) {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
	again, err := both.Seal(fake, "b1", "column")
	if err != nil || !both.Newest(again) {
		t.Error(err)
	}
	if _, err := first.Open(again, "b1", "column"); !errors.Is(err, secret.ErrSealed) {
		t.Errorf("the older key opens what the newer one sealed: %v", err)
	}
	for _, none := range []*secret.Keys{nil, {}} {
		if _, err := none.Seal(fake); err == nil {
			t.Error("sealed without a key")
		}
		if _, err := none.Open(sealed, "b1", "column"); !errors.Is(err, secret.ErrSealed) || none.Newest(sealed) {
			t.Error("opened without a key")
		}
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	t.Parallel()
	good := fakeKeyBytes(1)
	for text, says := range map[string]string{
		"": "empty", "short": "32 bytes", hex.EncodeToString(good[:31]): "32 bytes", base64.StdEncoding.EncodeToString(append(good, 1)): "32 bytes",
		hex.EncodeToString(good) + ",": "key 2", hex.EncodeToString(good) + "," + base64.RawURLEncoding.EncodeToString(good): "twice",
		strings.Repeat("00", 32): "random", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'a'}, 32)): "random",
	} {
		_, err := secret.ParseKeys(text)
		if err == nil || !strings.Contains(err.Error(), says) || len(text) > 10 && strings.Contains(err.Error(), text[:10]) {
			t.Errorf("%d characters: %v, want %q", len(text), err, says)
		}
	}
}
