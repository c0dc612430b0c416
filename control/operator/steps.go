package operator

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// The steps of what is done to a box, as reports name them, in this order. A step is
// reported if there was something to do.
const (
	StepNamespace = "namespace" // the box's namespace
	StepRights    = "rights"    // the operator's own rights in it
	StepAccount   = "account"   // the service account of the pod
	StepQuota     = "quota"     // how much the namespace may use
	StepLimits    = "limits"    // how much a container may use
	StepNetwork   = "network"   // who the pod may talk to
	StepToken     = "token"     // a new proxy token, registered
	StepState     = "state"     // the volume for the state of the gateway
	StepSecret    = "secret"    // the configuration
	StepGateway   = "gateway"   // the deployment
	StepReady     = "ready"     // the gateway answers
	StepStopped   = "stopped"   // no pod is left
	StepRevoke    = "revoke"    // proxy tokens that are not needed any more
	StepDelete    = "delete"    // the namespace is gone
)

// The operations, as control.BoxReport names them.
const (
	opProvision = "provision"
	opUpdate    = "update"
	opSuspend   = "suspend"
	opResume    = "resume"
	opRestart   = "restart"
	opRotate    = "rotate"
	opDestroy   = "destroy"
)

// steps are those of the operation in hand. They belong to the worker that has the box.
type steps struct {
	list  []control.BoxStep
	dirty map[string]bool // names of those that were not reported
}

// begin notes that a step is being done for a generation. One that goes on keeps its start.
func (s *steps) begin(name string, generation int64, now time.Time) {
	if s.dirty == nil {
		s.dirty = make(map[string]bool)
	}
	for i := range s.list {
		old := &s.list[i]
		if old.Name != name {
			continue
		}
		if old.Generation != generation || !old.FinishedAt.IsZero() {
			*old = control.BoxStep{Name: name, Generation: generation, StartedAt: now}
			s.dirty[name] = true
		}
		return
	}
	s.list = append(s.list, control.BoxStep{Name: name, Generation: generation, StartedAt: now})
	s.dirty[name] = true
}

// end notes how a step that was begun went; with an error it goes on. It returns how long the
// step took, and whether it has ended just now.
func (s *steps) end(name string, now time.Time, err error) (took time.Duration, ended bool) {
	for i := range s.list {
		step := &s.list[i]
		if step.Name != name || !step.FinishedAt.IsZero() {
			continue
		}
		about := say(err)
		if err == nil {
			step.FinishedAt = now
			ended = true
		}
		if about != (said{step.Error, step.Detail}) || ended {
			step.Error, step.Detail = about.text, about.detail
			s.dirty[name] = true
		}
		return now.Sub(step.StartedAt), ended
	}
	return 0, false
}

// unreported returns the steps that are new or have changed.
func (s *steps) unreported() []control.BoxStep {
	var out []control.BoxStep
	for _, step := range s.list {
		if s.dirty[step.Name] {
			out = append(out, step)
		}
	}
	return out
}

func (s *steps) reported() { clear(s.dirty) }
