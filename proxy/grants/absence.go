package grants

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// historyGrace is how long absences are not believed after the feed went back, although
// changes are published again, when no new mark says that the grants are back.
const historyGrace = time.Minute

// absence decides whether a grant that Redis does not have does not exist, or was lost
// with Redis' data and is about to be published again. The zero value is ready.
//
// The control plane keeps a mark, FeedComplete, while Redis has all grants, and
// FeedRebuild while it writes them anew. Absences are not believed
//
//   - while they are being written anew,
//   - while the mark is missing: Redis is new, or was emptied, and whoever keeps it has
//     not written all grants to it yet,
//   - after the feed went back or began anew, until there is another mark than before,
//     or historyGrace has passed since it had changes again.
type absence struct {
	mu       sync.Mutex
	mark     string        // the last one that was seen; "" before the first
	lost     bool          // the feed went back or began anew
	lostMark string        // the mark when that was noticed
	until    time.Duration // when lost: the end of historyGrace, 0 while the log is empty
}

// marks is what Redis says of itself.
type marks struct {
	complete   string // "" if it is missing
	rebuilding bool
}

func marksOf(values []any) (m marks) {
	if len(values) == 2 {
		m.complete, _ = values[0].(string)
		m.rebuilding = values[1] != nil
	}
	return m
}

func (c *Cache) marks(ctx context.Context) (marks, error) {
	values, err := c.client.HMGet(ctx, contract.FeedStateKey, contract.FeedComplete, contract.FeedRebuild).Result()
	if err != nil {
		return marks{}, fmt.Errorf("read whether all grants are there: %w", err)
	}
	return marksOf(values), nil
}

// believed takes note of m, which was read after the grant, and decides.
func (a *absence) believed(m marks, now time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost && (m.complete != "" && m.complete != a.lostMark || a.until != 0 && now >= a.until) {
		a.lost = false
	}
	if m.complete != "" {
		a.mark = m.complete
	}
	return !a.lost && !m.rebuilding && m.complete != ""
}

// lose says that the feed went back or began anew.
func (a *absence) lose() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost, a.lostMark, a.until = true, a.mark, 0
}

// published says that the log has changes.
func (a *absence) published(now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost && a.until == 0 {
		a.until = now + historyGrace
	}
}
