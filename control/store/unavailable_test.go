package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestUnavailable(t *testing.T) {
	t.Parallel()
	pg := testenv.DedicatedPostgres(t)
	st, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, none := st.Account(t.Context(), "cnone")
	for name, err := range map[string]error{"nil": nil, "not found": none, "invalid": control.ErrInvalid, "gone caller": context.Canceled} {
		if store.Unavailable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	pg.Pause()
	timed, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	_, slow := st.Account(timed, "cnone")
	cancel()
	pg.Resume()
	pg.Stop()
	_, away := st.Account(t.Context(), "cnone")
	for name, err := range map[string]error{"paused": slow, "stopped": away, "wrapped": fmt.Errorf("x: %w", away)} {
		if err == nil || !store.Unavailable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
