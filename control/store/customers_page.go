package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const listedColumns = `
	SELECT c.id, c.name, coalesce(c.email, ''), c.tier, c.status, c.created_at, p.settled_tokens, p.limit_tokens, p.percent`

// limitUse is what is used of the limit of c's period that contains at. div cuts off and is
// exact; the quotient of / could be rounded up to what is not reached.
func limitUse(at string) string {
	return ` LATERAL (
		SELECT settled_tokens, limit_tokens,
			CASE limit_tokens WHEN 0 THEN 100 ELSE div(settled_tokens * 100::numeric, limit_tokens)::bigint END AS percent
		FROM usage_periods WHERE customer_id = c.id AND starts_at <= ` + at + ` AND ends_at > ` + at + `
		ORDER BY starts_at DESC LIMIT 1) p`
}

// CustomersPage lists customers by age, oldest first, with what they have used of the limit of
// the period that contains at.
//
// Each condition has an index that has just its rows in order, but for what is used of a
// limit. With an index of that, no batch of usage could update the row of its period in place
// (HOT): it would write an entry of every index of the table instead, for a list that is asked for now and
// then. So the periods of customers are looked at in the order of the list until the page is
// full: all pages together look at each customer once, which takes some 20 µs (of 100,000
// customers of whom nobody is found, a second or two on a busy machine).
func (s *Store) CustomersPage(ctx context.Context, of control.CustomersFilter, at time.Time, after control.PageKey, limit int) ([]control.ListedCustomer, error) {
	sql, args := customersPage(of, at, after, limit)
	rows, _ := s.pool.Query(ctx, sql, args...)
	list, err := pgx.CollectRows(rows, scanListedCustomer)
	return list, explain("list customers", err)
}

func customersPage(of control.CustomersFilter, at time.Time, after control.PageKey, limit int) (sql string, args []any) {
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	const byAge = ` ORDER BY c.created_at, c.id`
	from := `customers`
	if of.Prefix != "" {
		from = beginning(arg(of.Prefix))
	}
	where := ` WHERE (c.created_at, c.id) > (` + arg(after.At) + `, ` + arg(after.ID) + `)`
	if of.Status != "" {
		where += ` AND c.status = ` + arg(string(of.Status))
	}
	if of.UsedFrom != nil {
		return listedColumns + ` FROM ` + from + ` c JOIN` + limitUse(arg(at)) + ` ON p.percent >= ` + arg(*of.UsedFrom) +
			where + byAge + ` LIMIT ` + arg(limit), args
	}
	// The page is cut first, so that no more periods are looked at than it has customers.
	page := `(SELECT * FROM ` + from + ` c` + where + byAge + ` LIMIT ` + arg(limit) + `)`
	return listedColumns + ` FROM ` + page + ` c LEFT JOIN` + limitUse(arg(at)) + ` ON true` + byAge, args
}

// beginning are the customers whose e-mail address or name begins with prefix: each read by an
// index of its own.
func beginning(prefix string) string {
	between := func(column string) string {
		return column + ` ~>=~ lower(` + prefix + `) AND ` + column + ` ~<~ (lower(` + prefix + `) || U&'\+10FFFF')`
	}
	const columns = `SELECT id, name, email, tier, status, created_at FROM customers WHERE `
	return `(` + columns + `email IS NOT NULL AND ` + between(`lower(email)`) + ` UNION ` + columns + between(`lower(name)`) + `)`
}

func scanListedCustomer(row pgx.CollectableRow) (c control.ListedCustomer, err error) {
	var used, limit, percent *int64
	err = row.Scan(&c.ID, &c.Name, &c.Email, &c.Tier, &c.Status, &c.CreatedAt, &used, &limit, &percent)
	c.CreatedAt = c.CreatedAt.UTC()
	if limit != nil {
		c.Period = &control.LimitUse{Used: *used, Limit: *limit, Percent: *percent}
	}
	return c, err
}
