package contract_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ascending is a source of "random" bytes that a golden test can repeat.
type ascending struct{ n byte }

func (a *ascending) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = a.n
		a.n++
	}
	return len(p), nil
}

func mint(t testing.TB) contract.Token {
	t.Helper()
	tok, err := contract.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// The layout is fixed for ever: tokens live in customers' Secrets.
func TestTokenLayout(t *testing.T) {
	tok, err := contract.NewToken(&ascending{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "ocp_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp"
	if got := tok.Reveal(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(want) != contract.TokenLen || !contract.TokenPattern.MatchString("x "+want+" y") {
		t.Errorf("%s does not have the published shape", want)
	}
}

func TestTokenRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		raw := mint(t).Reveal()
		if seen[raw] {
			t.Fatal("the same token twice")
		}
		seen[raw] = true
		if _, err := contract.ParseToken(raw); err != nil {
			t.Fatalf("a fresh token is refused: %v", err)
		}
	}
}

// Any change of one character is noticed without a look-up.
func TestTokenChecksum(t *testing.T) {
	raw := mint(t).Reveal()
	for i := range raw {
		for _, c := range []byte("0Az_-.") {
			b := []byte(raw)
			if b[i] == c {
				continue
			}
			b[i] = c
			if contract.PlausibleToken(b) {
				t.Errorf("accepted with byte %d changed", i)
			}
		}
	}
	for _, s := range []string{"", "ocp_", raw[:len(raw)-1], raw + "0", " " + raw, strings.ToUpper(raw), "ocp-" + raw[4:]} {
		if _, err := contract.ParseToken(s); err == nil {
			t.Errorf("accepted a token of length %d that is none", len(s))
		} else if s != "" && strings.Contains(err.Error(), s) {
			t.Error("the error quotes the token")
		}
	}
}

func TestTokenNeverPrints(t *testing.T) {
	tok := mint(t)
	secret := tok.Reveal()[4:]
	j, err := json.Marshal(map[string]any{"t": tok, "p": &tok})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q %d %x", tok, tok, tok, tok, tok, tok, tok) + fmt.Sprint(&tok, []contract.Token{tok}) + string(j)
	if strings.Contains(shown, secret) {
		t.Errorf("the secret is in %s", shown)
	}
	if tok.Hint() != secret[len(secret)-4:] {
		t.Errorf("hint %q", tok.Hint())
	}
}

func TestDigest(t *testing.T) {
	a, err := contract.NewHasher([]byte("pepper pepper pepper"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := contract.NewHasher([]byte("another pepper here!"))
	if err != nil {
		t.Fatal(err)
	}
	x, y := []byte(mint(t).Reveal()), []byte(mint(t).Reveal())
	once := a.Digest(x)
	if again := a.Digest(x); once != again || once == a.Digest(y) || once == b.Digest(x) {
		t.Error("a digest must depend on the token and the pepper, and on nothing else")
	}
	d := a.Digest(x)
	if back, err := contract.ParseDigest(d.Hex()); err != nil || back != d {
		t.Errorf("hex round trip: %v", err)
	}
	for _, s := range []string{"", "00", strings.Repeat("g", 64), d.Hex() + "0"} {
		if _, err := contract.ParseDigest(s); err == nil {
			t.Errorf("accepted %q as a digest", s)
		}
	}
	// HMAC-SHA-256 of a known token under a known pepper: digests at rest must not move.
	const want = "e46a2472c02acfeb62312ef1e7eb5180e21f747a66165b82d6ceba676cadc267"
	fixed := a.Digest([]byte("ocp_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp")).Hex()
	if fixed != want {
		t.Errorf("digest %s, want %s", fixed, want)
	}
	if _, err := contract.NewHasher([]byte("short")); err == nil {
		t.Error("accepted a short pepper")
	}
	if n := testing.AllocsPerRun(100, func() { a.Digest(x) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations per digest", n)
	}
}

func FuzzPlausibleToken(f *testing.F) {
	f.Add([]byte(mint(f).Reveal()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if contract.PlausibleToken(b) && !contract.TokenPattern.Match(b) {
			t.Errorf("%q is plausible but not of the published shape", b)
		}
		if _, err := contract.ParseToken(string(b)); (err == nil) != contract.PlausibleToken(bytes.Clone(b)) {
			t.Error("ParseToken and PlausibleToken disagree")
		}
	})
}
