package devstack

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

const (
	// boxSecret and boxTokenKey are where the operator keeps the proxy token of a box.
	boxSecret, boxTokenKey = "openclaw-config", "OPENCLAW_PROXY_TOKEN"
	// boxMadeWithin is how long it may take to make the first box; it takes seconds.
	boxMadeWithin = time.Minute
)

// boxToken returns the token that the operator made for a customer's box, once token-proxy takes it. The operator ends
// whatever other tokens that box has, a minute after it is what it shall be, so one that was made before would soon be
// refused.
func (s *stack) boxToken(ctx context.Context, customer string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, boxMadeWithin)
	defer cancel()
	plane := s.controlPlane()
	for {
		// Until it is there this fails; and it is written before it is registered.
		out, err := plane.Kubectl(ctx, nil, "get", "secret", boxSecret, "--namespace", "customer-"+customer, "--output", "jsonpath={.data."+boxTokenKey+"}")
		if token, bad := base64.StdEncoding.DecodeString(strings.TrimSpace(out)); err == nil && bad == nil && len(token) > 0 {
			if ok, err := s.accepted(ctx, string(token)); err == nil && ok {
				return string(token), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the box of customer %s has no token that token-proxy takes, after %s; the operator's log: %s", customer, boxMadeWithin, s.logFile("box-operator"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
