package operator

import (
	"context"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// kept is a Lease that is somebody's.
type kept struct {
	resourcelock.Interface
	record resourcelock.LeaderElectionRecord
	writes int
}

func (k *kept) Identity() string { return "one" }

func (k *kept) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r := k.record
	return &r, nil, nil
}

func (k *kept) Update(_ context.Context, r resourcelock.LeaderElectionRecord) error {
	k.record = r
	k.writes++
	return nil
}

// Who gives the Lease away reads it just before: what the election knows may be older than that another one
// leads, whose Lease would be free then.
func TestAnothersLeaseIsNotGivenAway(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	close(ended)
	for _, holder := range []string{"one", "two", ""} {
		k := &kept{record: resourcelock.LeaderElectionRecord{HolderIdentity: holder}}
		l := &lease{Interface: k, whole: time.Minute, ended: ended}
		if _, _, err := l.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := l.Update(t.Context(), resourcelock.LeaderElectionRecord{})
		if mine := holder == "one"; mine != (err == nil) || mine != (k.writes == 1) {
			t.Errorf("of %q: %v, %d writes", holder, err, k.writes)
		}
	}
}
