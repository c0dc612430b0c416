package contract

import (
	"strconv"
	"strings"
)

// Redis keys. Keys that one script touches share a hash tag ({…}), so that Redis
// Cluster keeps them in one slot: quota and rate keys by customer, the usage stream in one
// slot, the feed and all grants in one slot.
//
// Grants are not spread because they must be lost together with the feed, if at all. A
// server that restarts empty, or a replica that takes over without the last writes, then
// lacks what the feed says of them as well, and that shows. Spread over servers, a
// revocation could be lost on one of them and nothing would tell. What a cluster is for,
// the counters that each customer's traffic writes, is spread.
//
// All of them except the rate and traffic keys are durable: Redis must run with noeviction
// and AOF.

// GrantKey holds the Grant of one token, as JSON.
func GrantKey(d Digest) string { return "oc:{feed}:grant:" + d.Hex() }

// QuotaKey holds the record of one customer and period (hash: epoch, limit,
// limit_version, settled, leased, and per replica l:<replica> tokens leased, n:<replica>
// number of its last call, w:<replica> number of its last settled event, x:<replica> if it
// was declared lost). See package quota.
func QuotaKey(customer, period string) string { return "oc:quota:{" + customer + "}:" + period }

// QuotaPattern matches the keys that QuotaKey makes, in Redis' SCAN.
const QuotaPattern = "oc:quota:{*}:*"

// QuotaMarkKey holds the epoch in which it was set. It is missing, or older, if the master of
// a Redis Cluster that has it lost data. Each n has a slot of its own.
func QuotaMarkKey(n int) string { return "oc:quota:mark:{" + strconv.Itoa(n) + "}" }

// ParseQuotaKey undoes QuotaKey.
func ParseQuotaKey(key string) (customer, period string, ok bool) {
	rest, ok := strings.CutPrefix(key, "oc:quota:{")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "}:")
}

// RateKey holds how much each replica is asked for by one customer (hash:
// replica → demand and time).
func RateKey(customer string) string { return "oc:rate:{" + customer + "}" }

// TrafficKey holds what passes through a replica, as it announces it (Traffic, as JSON). It
// expires by itself. It lies beside the beats, so that one command reads those of all replicas.
func TrafficKey(replica string) string { return "oc:{quota}:traffic:" + replica }

// Feed and usage keys, and the channels beside them.
const (
	FeedLogKey  = "oc:{feed}:log"  // capped stream of changes; entry id "<number>-0"
	FeedChannel = "oc:{feed}:wake" // pub/sub: each change, encoded as in the log

	// FeedStateKey is what Redis says of itself: a hash, so that one command reads it all,
	// also while Redis Cluster moves the slot.
	FeedStateKey = "oc:{feed}:state"
	// FeedSeq is its field with the number of the newest change.
	FeedSeq = "seq"
	// FeedComplete is there while Redis holds the grants of all tokens, as far as they
	// were published. Where it is missing, Redis is new or has lost its data.
	FeedComplete = "complete"
	// FeedRebuild names the rebuild that is under way, so that it notices when Redis
	// loses its data once more.
	FeedRebuild = "rebuild"

	// FeedAppliedKey says how far readers are (hash: replica → number of the newest change
	// that it has applied). It is for whoever wants to know when a change is in force, and
	// not durable: what is missing comes back with the next change.
	FeedAppliedKey = "oc:{feed}:applied"

	UsageStreamKey = "oc:{usage}:events" // stream of batches of usage events
	UsageGroup     = "ledger"            // consumer group of the billing-workers
	UsageField     = "b"                 // field of a stream entry that holds a batch

	// UsageAckedKey says what a replica's journal may forget (hash: replica → highest n
	// such that each of its events 1…n is in Postgres, as a row or parked). A value is
	// never lowered; one that is missing comes back within seconds.
	UsageAckedKey = "oc:{usage}:acked"
)

// Keys and channel of the quota's epochs. Epochs and beats share a slot.
const (
	// QuotaEpochKey says which epoch holds (hash: epoch, state, m:<replica> → number of the
	// last event that the rebuilt records contain or "lost", d:<replica> → epoch in which it
	// has declared its leases, node:<id of a Redis server> → epoch for which it is trusted,
	// mark:<n> → epoch in which QuotaMarkKey(n) was set).
	QuotaEpochKey = "oc:{quota}:epoch"
	// QuotaBeatsKey shows which replicas live (hash: replica → "Unix ms|life|number of the
	// newest event|epoch|state", next:<replica> → "life|n" of a life that may not show itself
	// before the retirement of an earlier one was dealt with; n grows while it waits).
	QuotaBeatsKey = "oc:{quota}:beats"
	// QuotaMissingKey names records that replicas did not find (set of "customer period").
	QuotaMissingKey = "oc:{quota}:missing"
	// RecallChannel asks replicas to return what they lease and do not use ("customer period").
	RecallChannel = "oc:{quota}:recall"
)

// FeedLogLen is about how many changes the feed's log keeps. A reader that is
// further behind reloads.
const FeedLogLen = 10_000
