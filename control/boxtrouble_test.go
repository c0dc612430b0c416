package control_test

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Each kind of trouble is known by its text again, and nothing else is taken for one.
func TestBoxTroubleOf(t *testing.T) {
	t.Parallel()
	for _, k := range control.BoxTroubles() {
		if got := control.BoxTroubleOf(k.Text()); got != k {
			t.Errorf("the text of %q is that of %q", k, got)
		}
	}
	for _, text := range []string{"", "waiting for a Telegram bot token", control.BoxSlow.Text() + "."} {
		if got := control.BoxTroubleOf(text); got != "" {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}
