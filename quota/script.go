package quota

import (
	"fmt"
	"strconv"
	"strings"
)

// The protocol between replicas and the record of a customer and period in Redis.
//
// A replica speaks of its lease in whole numbers, never in differences: "I need floor at
// least, and would have so much more". It alone knows what floor is, so a repeated or late
// call can do no harm as long as an older one never follows a newer one: calls are
// numbered, with the life of the replica's journal in the high bits.
//
// Settlements ride on the same call. They carry the numbers of their events, ascending; the
// record keeps the highest one per replica and counts only those above it. So a
// settlement counts once, however often it is sent, and each frees the lease that covered
// it in the same step. For all replicas r, at any time:
//
//	settled + Σ lease(r) ≤ max(limit, the same when the limit was lowered)
//
// and lease(r) is at least what r has in flight, has not settled and may still give out.
//
// Within an epoch a lease grows only out of what is free. A floor can be above what the
// record has all the same: a replica that was started again does not know which of its
// events were settled before, and its floor covers all of those that did not fit into the
// call. It is cut to what the record has, less what this call settles, which is enough by
// the second rule. In a new epoch the first floor counts as it is: it is part of what was
// leased in the old one.
//
// An answer counts only in the epoch in which it was asked for, and a connection only if
// its Redis was trusted in that epoch or an earlier one (Guard): else a Redis that was put
// back to an older state could answer, from old records, those who do not know it yet.
//
// Numbers stay below 2^53, where Lua's are exact (see maxTokens); versions of limits may be
// larger and are compared as decimal strings.

// Answers of syncScript.
const (
	syncOK      = 1
	syncMissing = 0  // no record, or one of an older epoch
	syncEpoch   = -1 // the record is of a newer epoch
	syncStale   = -2 // the call is not newer than the last one; its number follows
	syncLost    = -3 // the replica was declared lost
)

// luaNewer compares versions of limits.
const luaNewer = `
local function newer(a, b)
  if not b then return true end
  return #a > #b or (#a == #b and a > b)
end
local function int(n) return string.format('%.0f', n) end
`

// syncScript settles and leases. It answers {syncOK, limit, version, settled, leased by
// others, leased by this replica, number of this replica's last settled event} or one of
// the other answers. Its cost in commands is the same whatever it settles.
//
//	KEYS[1] QuotaKey
//	ARGV: epoch, replica, number of the call, base, floor, least, need, spare, limit,
//	      limit version, then number and tokens of each settlement
//
// base is the number of the replica's last event that the record contains if it has never
// heard of the replica. Beyond floor the replica gets need, or what there is of it if that
// is at least least, and of spare at most half of what would remain for others.
const syncScript = luaNewer + `
local r = ARGV[2]
local q = redis.call('HMGET', KEYS[1], 'epoch', 'limit', 'limit_version', 'settled', 'leased',
  'l:' .. r, 'n:' .. r, 'w:' .. r, 'x:' .. r)
local epoch = tonumber(q[1] or 0)
if epoch < tonumber(ARGV[1]) then return {0} end
if epoch > tonumber(ARGV[1]) then return {-1} end
if q[9] then return {-3} end
if tonumber(ARGV[3]) <= tonumber(q[7] or 0) then return {-2, tonumber(q[7])} end

local before, mark = tonumber(q[4]), tonumber(q[8] or ARGV[4])
local settled = before
for i = 11, #ARGV, 2 do
  local seq = tonumber(ARGV[i])
  if seq > mark then
    mark = seq
    settled = settled + tonumber(ARGV[i + 1])
  end
end
local limit, version = tonumber(q[2]), q[3]
if newer(ARGV[10], version) then limit, version = tonumber(ARGV[9]), ARGV[10] end

local floor, least, need, spare = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local others = tonumber(q[5]) - tonumber(q[6] or 0)
if q[6] then floor = math.max(math.min(floor, tonumber(q[6]) - (settled - before)), 0) end
local free, extra = limit - settled - others - floor, 0
if free >= least then
  extra = math.min(need, free)
  extra = extra + math.min(spare, math.floor((free - extra) / 2))
end
local mine = floor + math.max(extra, 0)
redis.call('HSET', KEYS[1], 'limit', int(limit), 'limit_version', version, 'settled', int(settled),
  'leased', int(others + mine), 'l:' .. r, int(mine), 'n:' .. r, ARGV[3], 'w:' .. r, int(mark))
return {1, limit, version, settled, others, mine, mark}
`

// putScript makes the record if there is none of this epoch; if there is, it only learns
// a newer limit. It answers 1 if it made the record, 0 if the record was there, -1 if it is
// of a newer epoch. A record that is made sealed has the negative epoch and counts as
// missing until openScript has opened it.
//
//	KEYS[1] QuotaKey
//	ARGV: epoch, limit, limit version, settled, time in Unix ms when the record may go, 1 if sealed
const putScript = luaNewer + `
local q = redis.call('HMGET', KEYS[1], 'epoch', 'limit_version')
local epoch = tonumber(q[1] or 0)
if epoch > tonumber(ARGV[1]) then return -1 end
if epoch == tonumber(ARGV[1]) then
  if newer(ARGV[3], q[2]) then redis.call('HSET', KEYS[1], 'limit', ARGV[2], 'limit_version', ARGV[3]) end
  return 0
end
local made, limit, version = ARGV[1], ARGV[2], ARGV[3]
if ARGV[6] == '1' then made = '-' .. made end
if q[1] == '-' .. ARGV[1] and not newer(version, q[2]) then
  limit, version = redis.call('HGET', KEYS[1], 'limit'), q[2]
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', made, 'limit', limit, 'limit_version', version, 'settled', ARGV[4], 'leased', '0')
redis.call('PEXPIREAT', KEYS[1], ARGV[5])
return 1
`

// openScript opens a sealed record. It answers whether there is one that is open now.
//
//	KEYS[1] QuotaKey
//	ARGV: epoch
const openScript = `
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch == ARGV[1] then return 1 end
if epoch ~= '-' .. ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return 1
`

// limitScript learns a newer limit, if there is a record. It answers whether there is.
//
//	KEYS[1] QuotaKey
//	ARGV: limit, limit version
const limitScript = luaNewer + `
local q = redis.call('HMGET', KEYS[1], 'epoch', 'limit_version')
if not q[1] then return 0 end
if newer(ARGV[2], q[2]) then redis.call('HSET', KEYS[1], 'limit', ARGV[1], 'limit_version', ARGV[2]) end
return 1
`

// loseScript frees what a lost replica leases and shuts it out. It answers how much that was.
//
//	KEYS[1] QuotaKey
//	ARGV: replica
const loseScript = `
local q = redis.call('HMGET', KEYS[1], 'epoch', 'leased', 'l:' .. ARGV[1])
if not q[1] then return 0 end
local held = tonumber(q[3] or 0)
redis.call('HSET', KEYS[1], 'leased', string.format('%.0f', tonumber(q[2]) - held), 'x:' .. ARGV[1], '1')
redis.call('HDEL', KEYS[1], 'l:' .. ARGV[1])
return held
`

// maxTokens is the largest number of tokens that Lua, whose numbers are doubles, still
// counts one by one even after a few additions. Larger limits count as this much; larger
// reservations always exceed.
const maxTokens = 1 << 51

// callNumber is the number of a replica's n-th call in one life of its journal. Both parts
// together stay below 2^53: 2^21 lives, 2^32 calls per account and life.
func callNumber(life uint64, n int64) int64 { return int64(life&(1<<21-1))<<32 | n }

// args are the arguments of syncScript.
func (c *call) args(replica string) []any {
	args := make([]any, 0, 10+2*len(c.batch))
	args = append(args, c.epoch, replica, c.number, c.base, c.floor, c.least, c.need, c.spare, c.limit, c.version)
	for _, s := range c.batch {
		args = append(args, s.seq, s.tokens)
	}
	return args
}

// reply is an answer of syncScript.
type reply struct {
	status  int64
	number  int64 // with syncStale: of the newest call
	limit   int64
	version int64
	settled int64
	others  int64 // leased by other replicas
	lease   int64
	mark    int64 // number of this replica's last settled event
}

func parseReply(values []any) (r reply, err error) {
	number := func(i int) (n int64) {
		if err != nil {
			return 0
		}
		switch v := values[i].(type) {
		case int64:
			return v
		case string:
			n, err = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
		err = fmt.Errorf("answer %d of the script is a %T", i, values[i])
		return 0
	}
	if len(values) == 0 {
		return r, fmt.Errorf("the script answered nothing")
	}
	switch r.status = number(0); {
	case err != nil:
	case r.status == syncOK && len(values) == 7:
		r.limit, r.version, r.settled, r.others, r.lease, r.mark = number(1), number(2), number(3), number(4), number(5), number(6)
	case r.status == syncStale && len(values) == 2:
		r.number = number(1)
	case len(values) != 1:
		err = fmt.Errorf("the script answered %d values", len(values))
	}
	return r, err
}
