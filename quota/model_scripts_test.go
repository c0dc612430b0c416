package quota

// The scripts of script.go in Go. The model runs these; TestScriptsEqualTheirModel
// compares them with Redis.

// recordHead is the part of a record that all replicas share. Epoch 0: no record.
type recordHead struct{ epoch, limit, version, settled, leased int64 }

// recordPart is what a record has of one replica.
type recordPart struct {
	lease, call int64
	mark        int64 // -1 if the record has never heard of the replica
	lost        bool
}

// unheard is what a new record has of a replica.
func unheard() recordPart { return recordPart{mark: -1} }

// modelSync is syncScript.
func modelSync(h *recordHead, p *recordPart, c *call, base int64, wrong flaw) reply {
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
	if mark < 0 {
		mark = base
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
	others := h.leased - p.lease
	free, extra := limit-settled-others-c.floor, int64(0)
	if wrong == flawFreeWithoutFloor {
		free += c.floor
	}
	if free >= c.least {
		extra = min(c.need, free)
		extra += min(c.spare, (free-extra)>>1)
	}
	mine := c.floor + max(extra, 0)
	*h = recordHead{epoch: h.epoch, limit: limit, version: version, settled: settled, leased: others + mine}
	*p = recordPart{lease: mine, call: c.number, mark: mark}
	return reply{status: syncOK, limit: limit, version: version, settled: settled, others: others, lease: mine}
}

// modelPut is putScript. Whoever calls it forgets all parts of the record when it answers 1.
func modelPut(h *recordHead, epoch, limit, version, settled int64) int64 {
	if h.epoch > epoch {
		return -1
	}
	if h.epoch == epoch {
		if version > h.version {
			h.limit, h.version = limit, version
		}
		return 0
	}
	*h = recordHead{epoch: epoch, limit: limit, version: version, settled: settled}
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
	held := p.lease
	h.leased -= held
	p.lease, p.lost = 0, true
	return held
}
