package load

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Job is one request: bytes that are ready to be sent, in up to three parts, so that a
// large filling can be shared by many.
type Job struct {
	Head, Fill, Tail []byte
}

// Config says what to send. Either Closed, or Rate, or Arrivals.
type Config struct {
	Target      string             // host:port, plain HTTP
	Jobs        func(n uint64) Job // the n-th request; called from several goroutines
	Connections int                // at most; 64 if 0

	// Patient clients send nothing for as long as a refusal's Retry-After says. What falls due meanwhile
	// at Rate or by Arrivals is not sent, for it is the same client's: each is one connection.
	Patient bool

	Closed   bool            // each connection sends its next request when it has its answer
	Rate     float64         // arrivals per second
	Poisson  bool            // arrivals at random with that rate, instead of evenly
	Arrivals []time.Duration // or these, from the beginning, ascending

	Ramp     time.Duration // closed: the connections' first requests are spread over this
	Warmup   time.Duration // before anything is counted
	Duration time.Duration // counted; with Arrivals until the last is answered, if 0
	Timeout  time.Duration // of one answer; 30 s if 0
	Threads  int           // that drive the connections; 1 if 0
	Seed     uint64        // of the random arrivals

	// Begin and End are called when counting begins and ends, e.g. to read clocks. May be nil.
	Begin, End func()
	// Progress is called each second. May be nil.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Elapsed, Total time.Duration
	Answers        int64 // since the start
	Events         int64
	Failures       int64 // refusals included
	Open           int64 // requests in flight
}

func (c *Config) setDefaults() error {
	if c.Connections <= 0 {
		c.Connections = 64
	}
	if c.Threads <= 0 {
		c.Threads = 1
	}
	c.Threads = min(c.Threads, c.Connections)
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	kinds := 0
	for _, is := range []bool{c.Closed, c.Rate > 0, len(c.Arrivals) > 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("load: give exactly one of Closed, Rate and Arrivals")
	}
	if c.Jobs == nil || c.Duration <= 0 && len(c.Arrivals) == 0 {
		return errors.New("load: Jobs and Duration are required")
	}
	return nil
}

// never is later than any arrival, and can be added to a time.
const never = time.Duration(1 << 61)

// schedule yields one thread's arrivals: every threads-th of all.
type schedule struct {
	arrivals []time.Duration
	rate     float64
	random   *rand.Rand
	n, step  uint64
	at       time.Duration // of arrival n
}

// newSchedule returns the arrivals of thread i.
func newSchedule(c *Config, i int) *schedule {
	s := &schedule{arrivals: c.Arrivals, rate: c.Rate, n: uint64(i), step: uint64(c.Threads)}
	if c.Poisson {
		// The sum of independent Poisson processes is one, of the summed rate.
		s.random = rand.New(rand.NewPCG(c.Seed, uint64(i)))
		s.rate /= float64(c.Threads)
		s.at = s.gap()
		return s
	}
	s.set()
	return s
}

// gap is the random time to the next arrival.
func (s *schedule) gap() time.Duration {
	return time.Duration(s.random.ExpFloat64() / s.rate * float64(time.Second))
}

func (s *schedule) set() {
	switch {
	case s.rate > 0:
		s.at = time.Duration(float64(s.n) / s.rate * float64(time.Second))
	case s.n < uint64(len(s.arrivals)):
		s.at = s.arrivals[s.n]
	default:
		s.at = never
	}
}

// next goes on to the next arrival.
func (s *schedule) next() {
	s.n += s.step
	if s.random != nil {
		s.at += s.gap()
		return
	}
	s.set()
}
