package contract

import "strings"

// Redis keys. Keys that one script touches share a hash tag ({…}), so that Redis
// Cluster keeps them in one slot: quota and rate keys by customer, a grant by
// its digest, the feed in one slot, the usage stream in one slot.
//
// All of them except the rate keys are durable: Redis must run with noeviction
// and AOF.

// GrantKey holds the Grant of one token, as JSON.
func GrantKey(d Digest) string { return "oc:grant:{" + d.Hex() + "}" }

// QuotaKey holds the record of one customer and period (hash: epoch, limit,
// limit_version, settled, leased, and per replica l:<replica> tokens leased, n:<replica>
// number of its last call, w:<replica> number of its last settled event, x:<replica> if it
// was declared lost). See package quota.
func QuotaKey(customer, period string) string { return "oc:quota:{" + customer + "}:" + period }

// QuotaPattern matches the keys that QuotaKey makes, in Redis' SCAN.
const QuotaPattern = "oc:quota:{*}:*"

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

// Feed and usage keys, and the channels beside them.
const (
	FeedSeqKey  = "oc:{feed}:seq"  // number of the newest change
	FeedLogKey  = "oc:{feed}:log"  // capped stream of changes; entry id "<number>-0"
	FeedChannel = "oc:{feed}:wake" // pub/sub: each change, encoded as in the log

	// FeedCompleteKey is there while Redis holds the grants of all tokens, as far as they
	// were published. Where it is missing, Redis is new or has lost its data.
	FeedCompleteKey = "oc:{feed}:complete"
	// FeedRebuildKey names the rebuild that is under way, so that it notices when Redis
	// loses its data once more.
	FeedRebuildKey = "oc:{feed}:rebuild"

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
	// has declared its leases, node:<run id of a Redis> → epoch for which it is trusted).
	QuotaEpochKey = "oc:{quota}:epoch"
	// QuotaBeatsKey shows which replicas live (hash: replica → "Unix ms|life|number of the
	// newest event|epoch|state").
	QuotaBeatsKey = "oc:{quota}:beats"
	// QuotaMissingKey names records that replicas did not find (set of "customer period").
	QuotaMissingKey = "oc:{quota}:missing"
	// RecallChannel asks replicas to return what they lease and do not use ("customer period").
	RecallChannel = "oc:{quota}:recall"
)

// FeedLogLen is about how many changes the feed's log keeps. A reader that is
// further behind reloads.
const FeedLogLen = 10_000
