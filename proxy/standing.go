package proxy

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const (
	// standingAge is how old a customer's counters may be in the headers of an answer
	// that did not have to ask for them.
	standingAge = 2 * time.Second
	// maxStandings bounds how many are remembered.
	maxStandings = 10_000
)

// standings tells where customers stand in their monthly limit, for the headers of
// answers that reserve nothing, refusals most of all: from the ledger's memory, or with
// one read of Redis per customer and standingAge, however many such answers there are.
type standings struct {
	flight singleflight.Group

	mu sync.Mutex
	by map[string]standing
}

type standing struct {
	answer quota.Answer
	period string
	read   time.Time
}

// standing returns the counters of the grant's customer. The verdict is Unknown where
// they cannot be read.
func (s *Server) standing(g *contract.Grant) quota.Answer {
	acct := quota.Account{Customer: g.CustomerID, Period: g.Period, Limit: g.MonthlyLimit, LimitVersion: g.LimitVersion}
	// Nothing is reserved by 0 tokens; the ledger's memory answers or says that it cannot.
	if a := s.ledger.TryReserve(acct, 0); a.Verdict != quota.Unknown {
		if a.Verdict == quota.Granted {
			s.ledger.Release(a.Hold)
		}
		return a
	}
	if a, ok := s.standings.remembered(acct); ok {
		return a
	}
	v, _, _ := s.standings.flight.Do(acct.Customer+" "+acct.Period.ID, func() (any, error) {
		u, err := s.ledger.Usage(s.life, acct)
		a := quota.Answer{Limit: u.Limit, Settled: u.Settled, Held: u.Held}
		if err == nil {
			a.Verdict = quota.Granted
		}
		// A failure is remembered too: not every refusal has to wait for Redis.
		s.standings.remember(acct, a)
		return a, nil
	})
	return v.(quota.Answer)
}

func (st *standings) remembered(acct quota.Account) (quota.Answer, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	have, ok := st.by[acct.Customer]
	return have.answer, ok && have.period == acct.Period.ID && time.Since(have.read) < standingAge
}

func (st *standings) remember(acct quota.Account, a quota.Answer) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.by == nil || len(st.by) >= maxStandings {
		st.by = map[string]standing{}
	}
	st.by[acct.Customer] = standing{a, acct.Period.ID, time.Now()}
}
