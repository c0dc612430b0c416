package quota

// The Lua scripts of RedisLedger. All of them get the same keys, which share a slot:
//
//	KEYS[1] QuotaKey    hash: limit, limit_version, settled, held, swept (ms)
//	KEYS[2] HoldsKey    hash: hold id → "tokens:deadline", deadline in ms of Redis' clock
//	KEYS[3] SettledKey  hash: hold id → "p:tokens" or "t:deadline", see below
//
// A settlement counts only for an id that is held, so a repeated one changes
// nothing and no list of settled ids has to be kept. Only the two exceptions are
// remembered in KEYS[3]:
//
//   - p: the hold was purged because its deadline passed; it may still be settled,
//     once.
//   - t: the hold was abandoned (its owner never learnt whether it was granted); a
//     reservation that arrives later is refused.
//
// So memory grows with what is in flight and with what went wrong, not with
// requests. Numbers stay below 2^53 (see maxTokens), where Lua's are exact; limit
// versions are compared as decimal strings, since they may be larger.

// luaPrelude is common to the scripts that may store a limit.
const luaPrelude = `
local function newer(a, b)
  if not b then return true end
  return #a > #b or (#a == #b and a > b)
end
local function int(n) return string.format('%.0f', n) end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- The keys outlive their period so that late settlements find it.
local function expire(key, periodEnd)
  redis.call('PEXPIREAT', key, int(math.max(now, periodEnd) + 35 * 86400000))
end
local function learn(limit, version, periodEnd)
  if newer(version, redis.call('HGET', KEYS[1], 'limit_version')) then
    redis.call('HSET', KEYS[1], 'limit', limit, 'limit_version', version)
    expire(KEYS[1], periodEnd)
  end
end
`

// reserveScript answers {verdict, limit, settled, held}.
//
//	ARGV: id, tokens, limit, limit version, hold TTL ms, period end ms
const reserveScript = luaPrelude + `
learn(ARGV[3], ARGV[4], tonumber(ARGV[6]))
local id, tokens, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local q = redis.call('HMGET', KEYS[1], 'limit', 'settled', 'held', 'swept')
local limit, settled, held = tonumber(q[1]), tonumber(q[2] or 0), tonumber(q[3] or 0)
local swept = tonumber(q[4] or 0)

-- A client may send a command again after a lost reply.
if redis.call('HEXISTS', KEYS[2], id) == 1 then return {1, limit, settled, held} end
if redis.call('HEXISTS', KEYS[3], id) == 1 then return {-1, limit, settled, held} end

-- Walking all holds is for the rare moment: now and then, and before a refusal.
local refuse = settled + held + tokens > limit
local age = now - swept
if age >= 60000 or age < 0 or (refuse and age >= 1000) then
  held = 0
  local all = redis.call('HGETALL', KEYS[2])
  for i = 1, #all, 2 do
    local t, deadline = string.match(all[i+1], '^(%d+):(%d+)$')
    if tonumber(deadline) < now then
      redis.call('HDEL', KEYS[2], all[i])
      redis.call('HSET', KEYS[3], all[i], 'p:' .. t)
      expire(KEYS[3], tonumber(ARGV[6]))
    else
      held = held + tonumber(t)
    end
  end
  local marks = redis.call('HGETALL', KEYS[3])
  for i = 1, #marks, 2 do
    local deadline = string.match(marks[i+1], '^t:(%d+)$')
    if deadline and tonumber(deadline) < now then redis.call('HDEL', KEYS[3], marks[i]) end
  end
  redis.call('HSET', KEYS[1], 'held', int(held), 'swept', int(now))
end

if tokens > math.max(limit - settled, 0) then return {3, limit, settled, held} end
if settled + held + tokens > limit and tokens > 0 then return {2, limit, settled, held} end
redis.call('HSET', KEYS[2], id, int(tokens) .. ':' .. int(now + ttl))
expire(KEYS[2], tonumber(ARGV[6]))
held = held + tokens
redis.call('HSET', KEYS[1], 'held', int(held))
return {1, limit, settled, held}
`

// settleScript applies any number of (id, operation, used) to one account.
//
//	operations: s settle, r release, a abandon (release, and refuse it from now on)
//	ARGV: tombstone TTL ms, then id, operation, used, id, operation, used, …
const settleScript = luaPrelude + `
local freed, settled = 0, 0
local tombstone = int(now + tonumber(ARGV[1]))
for i = 2, #ARGV, 3 do
  local id, op, used = ARGV[i], ARGV[i+1], tonumber(ARGV[i+2])
  local tokens
  local hold = redis.call('HGET', KEYS[2], id)
  if hold then
    tokens = tonumber(string.match(hold, '^(%d+):'))
    redis.call('HDEL', KEYS[2], id)
    freed = freed + tokens
  else
    local mark = redis.call('HGET', KEYS[3], id)
    tokens = mark and tonumber(string.match(mark, '^p:(%d+)$'))
    if tokens then redis.call('HDEL', KEYS[3], id) end
  end
  if op == 's' and tokens then settled = settled + math.min(used, tokens) end
  if op == 'a' then
    redis.call('HSET', KEYS[3], id, 't:' .. tombstone)
    expire(KEYS[3], now)
  end
end
if freed > 0 then
  local held = tonumber(redis.call('HGET', KEYS[1], 'held') or 0)
  redis.call('HSET', KEYS[1], 'held', int(math.max(held - freed, 0)))
end
if settled > 0 then redis.call('HINCRBY', KEYS[1], 'settled', int(settled)) end
return 1
`

// limitScript stores a newer limit.
//
//	ARGV: limit, limit version, period end ms
const limitScript = luaPrelude + `
learn(ARGV[1], ARGV[2], tonumber(ARGV[3]))
return 1
`

// restoreScript raises what is settled, after it was lost.
//
//	ARGV: limit, limit version, period end ms, settled
const restoreScript = luaPrelude + `
learn(ARGV[1], ARGV[2], tonumber(ARGV[3]))
if tonumber(redis.call('HGET', KEYS[1], 'settled') or 0) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], 'settled', ARGV[4])
end
return 1
`
