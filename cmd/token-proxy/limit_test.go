package main_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota/quotatest"
)

// says waits until the log has text.
func (p *proxy) says(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(p.said(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %q:\n%s", text, p.said())
		}
	}
}

// A replica that the control plane has not taken note of is not ready and says why; once
// it was registered, readiness has nothing to do with Redis.
func TestNotReadyUntilRegistered(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	p := start(t, redis.URL, false)
	p.await(t, http.StatusServiceUnavailable, "not registered")
	p.says(t, "tokens cannot be reserved")
	plane := quotatest.New(t, redis.Client())
	p.await(t, http.StatusOK, "ready")
	p.says(t, "tokens can be reserved")
	plane.Close()
	redis.Stop()
	p.says(t, "nothing was heard from Redis") // after the grace
	p.await(t, http.StatusOK, "ready")
	// A new epoch is needed before it serves again: this Redis was restarted.
	redis.Start()
	quotatest.New(t, redis.Client())
	for deadline := time.Now().Add(20 * time.Second); strings.Count(p.said(), `"tokens can be reserved"`) < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not serve again:\n%s", p.said())
		}
	}
}
