package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

const fake = "sk-fake-never-to-be-shown"

func TestNeverShown(t *testing.T) {
	t.Parallel()
	holder := struct {
		Key   secret.Text
		Empty secret.Text
	}{Key: fake}
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("x", "holder", holder, "key", holder.Key, "list", []secret.Text{fake})
	}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", holder, &holder, holder.Key)
	}
	yaml, err := holder.Key.MarshalYAML()
	fmt.Fprint(&out, yaml, err)
	if s := out.String(); strings.Contains(s, fake) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", fake)) {
		t.Errorf("shown in: %s", s)
	}
	if holder.Key.Reveal() != fake || holder.Key.String() != "[redacted]" || holder.Empty.String() != "" {
		t.Errorf("reveals %q, prints %q and %q", holder.Key.Reveal(), holder.Key.String(), holder.Empty.String())
	}
}

func TestReadFromJSON(t *testing.T) {
	t.Parallel()
	var got struct{ Key secret.Text }
	if err := json.Unmarshal([]byte(`{"Key":"`+fake+`"}`), &got); err != nil || got.Key.Reveal() != fake {
		t.Errorf("read %q, %v", got.Key.Reveal(), err)
	}
}
