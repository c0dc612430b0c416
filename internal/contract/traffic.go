package contract

import "time"

// Traffic is what a replica of token-proxy announces of what passes through it, as JSON at
// TrafficKey. It is for operators to look at: nothing is decided or billed by it.
//
// The counters count from Started, and their time is Uptime, which no clock that is set moves:
// who wants a rate divides what one of them grew by, between two announcements of the same
// Started, by what Uptime grew. Whoever adds a field must take it that older replicas leave
// it out, and older readers do not see it.
type Traffic struct {
	Started  int64 `json:"started"`   // Unix ms, by the replica's clock
	Uptime   int64 `json:"uptime_ms"` // since then
	InFlight int64 `json:"in_flight"` // requests between authentication and the end of their answer
	Streams  int64 `json:"streams"`   // those of them whose answer comes as events
	Answered int64 `json:"answered"`  // requests that an upstream has seen and that have ended, however
	Tokens   int64 `json:"tokens"`    // prompt and completion, as counted when they ended
	// Refused are requests that were answered with an error of ours, or of the upstream that says
	// so. Those that an upstream has seen are in Answered too. A class without any is left out.
	Refused map[RefusalClass]int64 `json:"refused,omitempty"`
}

// RefusalClass is why requests were refused, in few words.
type RefusalClass string

// The classes.
const (
	RefusedAuth     RefusalClass = "auth"     // no token, a wrong one, or one that was suspended or revoked
	RefusedRate     RefusalClass = "rate"     // too many in a second or in flight
	RefusedQuota    RefusalClass = "quota"    // the monthly limit
	RefusedOverload RefusalClass = "overload" // the proxy had too much to do, was ending, or could not check the limit
	RefusedUpstream RefusalClass = "upstream" // the upstream refused, failed or could not be reached
	RefusedRequest  RefusalClass = "request"  // the request itself: malformed, too large, a model that there is not
)

// RefusalClasses lists them all.
func RefusalClasses() []RefusalClass {
	return []RefusalClass{RefusedAuth, RefusedRate, RefusedQuota, RefusedOverload, RefusedUpstream, RefusedRequest}
}

// How often a replica announces its traffic, and how long an announcement counts: Redis
// forgets it then, so that nobody takes what is not there any more for what is.
const (
	TrafficEvery = time.Second
	TrafficKept  = 10 * time.Second
)
