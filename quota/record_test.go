package quota_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// record is what Redis has of an account.
type record struct {
	epoch, limit, settled, leased int64
	leases                        map[string]int64
}

func readRecord(p *plane, acct quota.Account) (r record, err error) {
	fields, err := p.client.HGetAll(context.Background(), contract.QuotaKey(acct.Customer, acct.Period.ID)).Result()
	if err != nil {
		return r, err
	}
	number := func(name string) int64 {
		n, e := strconv.ParseInt(fields[name], 10, 64)
		if e != nil && len(fields) > 0 {
			err = fmt.Errorf("field %s is %q", name, fields[name])
		}
		return n
	}
	r = record{number("epoch"), number("limit"), number("settled"), number("leased"), map[string]int64{}}
	for name := range fields {
		if id, ok := strings.CutPrefix(name, "l:"); ok {
			r.leases[id] = number(name)
		}
	}
	return r, err
}

// check reports what is wrong with r if its limit was never lower than limit, nor higher.
func (r record) check(limit int64) error {
	sum := int64(0)
	for id, n := range r.leases {
		if n < 0 {
			return fmt.Errorf("%s leases %d", id, n)
		}
		sum += n
	}
	switch {
	case sum != r.leased:
		return fmt.Errorf("leases %v are not %d", r.leases, r.leased)
	case r.settled < 0 || r.settled+r.leased > limit:
		return fmt.Errorf("settled %d and leased %d are above %d", r.settled, r.leased, limit)
	}
	return nil
}
