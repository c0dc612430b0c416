package quota

// The scripts of script.go in Go. The model runs these; TestScriptsEqualTheirModel
// compares them with Redis.

// recordHead is the part of a record that all replicas share. Epoch 0: no record; less
// than 0: a sealed one.
type recordHead struct{ epoch, limit, version, settled, leased int64 }

// recordPart is what a record has of one replica.
type recordPart struct {
	lease, call int64 // lease is never, if the record never had one
	mark        int64 // never, if the record never had one
	lost        bool
}

// never stands for a field that is not there.
const never = -1

// unheard is what a new record has of a replica.
func unheard() recordPart { return recordPart{lease: never, mark: never} }

// modelSync is syncScript.
func modelSync(h *recordHead, p *recordPart, c *call, wrong flaw) reply {
	switch {
	case h.epoch < c.epoch:
		return reply{status: syncMissing}
	case h.epoch > c.epoch:
		return reply{status: syncEpoch}
	case p.lost:
		return reply{status: syncLost}
	case c.number <= p.call && wrong != flawNoCallNumbers:
		return reply{status: syncStale, number: p.call}
	}
	settled, mark := h.settled, p.mark
	if mark == never {
		mark = c.base
	}
	for _, s := range c.batch {
		if s.seq > mark || wrong == flawNoMark {
			mark = s.seq
			settled += s.tokens
		}
	}
	limit, version := h.limit, h.version
	if c.version > version {
		limit, version = c.limit, c.version
	}
	floor, others := c.floor, h.leased-max(p.lease, 0)
	if p.lease != never {
		floor = max(min(floor, p.lease-(settled-h.settled)), 0)
	}
	free, extra := limit-settled-others-floor, int64(0)
	if wrong == flawFreeWithoutFloor {
		free += floor
	}
	if free >= c.least {
		extra = min(c.need, free)
		extra += min(c.spare, (free-extra)>>1)
	}
	mine := floor + max(extra, 0)
	*h = recordHead{epoch: h.epoch, limit: limit, version: version, settled: settled, leased: others + mine}
	*p = recordPart{lease: mine, call: c.number, mark: mark}
	return reply{status: syncOK, limit: limit, version: version, settled: settled, others: others, lease: mine, mark: mark}
}

// modelPut is putScript. Whoever calls it forgets all parts of the record when it answers 1.
func modelPut(h *recordHead, epoch, limit, version, settled int64, sealed bool) int64 {
	if h.epoch > epoch {
		return -1
	}
	if h.epoch == epoch {
		if version > h.version {
			h.limit, h.version = limit, version
		}
		return 0
	}
	made := epoch
	if sealed {
		made = -epoch
	}
	if h.epoch == -epoch && version <= h.version {
		limit, version = h.limit, h.version
	}
	*h = recordHead{epoch: made, limit: limit, version: version, settled: settled}
	return 1
}

// modelOpen is openScript.
func modelOpen(h *recordHead, epoch int64) int64 {
	if h.epoch != epoch && h.epoch != -epoch {
		return 0
	}
	h.epoch = epoch
	return 1
}

// modelLimit is limitScript.
func modelLimit(h *recordHead, limit, version int64) int64 {
	if h.epoch == 0 {
		return 0
	}
	if version > h.version {
		h.limit, h.version = limit, version
	}
	return 1
}

// modelLose is loseScript.
func modelLose(h *recordHead, p *recordPart) int64 {
	if h.epoch == 0 {
		return 0
	}
	held := max(p.lease, 0)
	h.leased -= held
	p.lease, p.lost = never, true
	return held
}
