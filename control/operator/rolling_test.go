package operator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// other is an image that is rolled out.
const other = "registry.test/openclaw-gateway@sha256:1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f"

// A new image that does not come up stops after so many boxes, also if the operator is restarted
// meanwhile; the others are looked after as before.
func TestRolling(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.HealthEvery = 500 * time.Millisecond
	op := e.run(opts)
	var boxes []control.Box
	for range 4 {
		boxes = append(boxes, e.customer("starter"))
	}
	for _, b := range boxes {
		e.becomes(b.ID, control.BoxActive, soon)
	}
	rolled := func() (spaces []string) {
		for _, b := range boxes {
			if e.field(b.Namespace, "deployment/openclaw-gateway", ".spec.template.spec.containers[0].image") == other {
				spaces = append(spaces, b.Namespace)
			}
		}
		return spaces
	}
	for n := range 2 {
		e.kube.Kubectl("cordon", fmt.Sprintf("node-%d", n)) // so no new pod becomes ready
	}
	opts.Objects.Image, opts.Rolling = other, 1
	for life := range 2 {
		if err := op.stop(); err != nil {
			t.Fatal(err)
		}
		op = e.run(e.another(opts))
		e.until(soon, func() string {
			if len(rolled()) == 0 {
				return "no box gets the new image"
			}
			return ""
		})
		time.Sleep(4 * time.Second)
		if got := rolled(); len(got) != 1 {
			t.Fatalf("in life %d of the operator %v have an image that does not come up", life, got)
		}
	}
	bad := rolled()[0]
	waits := boxes[0]
	if waits.Namespace == bad {
		waits = boxes[1]
	}
	pod := e.field(waits.Namespace, "pods", ".items[0].metadata.name")
	e.kube.Kubectl("patch", "pod", "-n", waits.Namespace, pod, "--subresource=status", "--type=strategic", "-p",
		`{"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"ContainersReady","status":"False"}],"containerStatuses":[{"name":"gateway","ready":false}]}}`)
	e.until(soon, func() string {
		if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE target = '" + waits.ID + "' AND detail->>'state' = 'unhealthy'")); n == "0" {
			return "nobody notices that a gateway is down that waits for the new image"
		}
		return ""
	})
	for n := range 2 {
		e.kube.Kubectl("uncordon", fmt.Sprintf("node-%d", n))
	}
	e.until(2*soon, func() string { // one after the other
		if got := rolled(); len(got) != len(boxes) {
			return fmt.Sprintf("only %v have the new image", got)
		}
		return ""
	})
	for _, b := range boxes {
		e.becomes(b.ID, control.BoxActive, soon)
		e.asDesired(opts, b.ID)
	}
}
