package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// show writes what a run came to: one table, then the faults, then what is wrong.
func show(w io.Writer, f *facts, v *verdict, in *injector, samples int64) {
	fmt.Fprintf(w, "\nWhat the upstream's ledger, the rows, Postgres and Redis say, in tokens. Kept means: billed = ledger (up to what\n"+
		"was reserved), relayed <= billed <= reserved, no violation, Postgres = Redis, nothing held.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t\t\t|\tupstream\t\t\t|\testimated\t\t\t\t|\trecovered\t\t\t\t|\tviolations\t\t\t\t\t|\tsettled\t\t\t")
	fmt.Fprintln(t, "customer\tlimit\tforwarded\t|\trows\tledger\tbilled\t|\trows\trelayed\tbilled\treserved\t|\trows\trelayed\tbilled\treserved\t|"+
		"\tmissing\ttwice\tdifferent\toutside\tover\t|\tPostgres\tRedis\theld\t")
	sum := newTotals()
	for i := range f.books {
		b, l := &f.books[i], &v.lines[i]
		fmt.Fprintln(t, tableLine(strconv.Itoa(i), short(b.limit), l, b)+"\t")
		sum.add(l, b)
	}
	fmt.Fprintln(t, tableLine("total", "", &sum.line, &sum.books)+"\t")
	_ = t.Flush()

	fmt.Fprintf(w, "\nforwarded %s; rows %s; lost with a journal %d; customers at their limit %d of %d; looks at the counters %d\n",
		number(int64(sum.line.forwarded)), number(int64(sum.line.rows)), v.lost, atLimit(f), len(f.books), samples)
	for _, b := range in.bounds {
		fmt.Fprintln(w, "  lost machine:", b)
	}
	showKills(w, in)
	showVerdict(w, v)
}

// totals adds up lines.
type totals struct {
	line  line
	books books
}

func newTotals() *totals {
	return &totals{line: line{basis: map[string]*basisSum{}, count: map[string]int{}}, books: books{redis: new(int64)}}
}

func (t *totals) add(l *line, b *books) {
	t.line.forwarded += l.forwarded
	t.line.rows += l.rows
	for name, s := range l.basis {
		sum := t.line.basis[name]
		if sum == nil {
			sum = &basisSum{}
			t.line.basis[name] = sum
		}
		sum.rows += s.rows
		sum.ledger += s.ledger
		sum.billed += s.billed
		sum.relayed += s.relayed
		sum.reserved += s.reserved
	}
	for name, n := range l.count {
		t.line.count[name] += n
	}
	t.books.postgres += b.postgres
	if b.redis != nil {
		*t.books.redis += *b.redis
	}
	t.books.held += b.held
}

func tableLine(name, limit string, l *line, b *books) string {
	cells := []string{name, limit, number(int64(l.forwarded)), "|"}
	for _, basis := range []string{"upstream", "estimated", "recovered"} {
		s := l.basis[basis]
		if s == nil {
			s = &basisSum{}
		}
		cells = append(cells, number(int64(s.rows)))
		if basis == "upstream" {
			cells = append(cells, number(s.ledger), number(s.billed), "|")
		} else {
			cells = append(cells, number(s.relayed), number(s.billed), number(s.reserved), "|")
		}
	}
	for _, what := range []string{vMissing, vTwice, vDifferent, vOutside, vOver} {
		cells = append(cells, number(int64(l.count[what])))
	}
	redis := "none"
	if b.redis != nil {
		redis = number(*b.redis)
	}
	return strings.Join(append(cells, "|", number(b.postgres), redis, number(b.held)), "\t")
}

// short writes a large limit in millions.
func short(n int64) string {
	if n >= 1_000_000 && n%100_000 == 0 {
		return strconv.FormatFloat(float64(n)/1_000_000, 'f', -1, 64) + "M"
	}
	return number(n)
}

func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// atLimit counts the customers who could not do more than the smallest requests.
func atLimit(f *facts) int {
	n := 0
	for _, b := range f.books {
		if b.limit-b.postgres < b.limit/100+2*spareOutput {
			n++
		}
	}
	return n
}

func showKills(w io.Writer, in *injector) {
	in.mu.Lock()
	defer in.mu.Unlock()
	proxies, busy := in.proxyKills()
	var streams []int
	points := map[string]int{}
	for _, k := range in.kills {
		if k.point != "" {
			points[k.point]++
		}
		if k.proxy {
			streams = append(streams, k.streams)
		}
	}
	fmt.Fprintf(w, "\nkills %d, of these at commit points %d; kills of proxies %d, with %d or more streams open there %d", len(in.kills), sumOf(points), proxies, manyStreams, busy)
	if len(streams) > 0 {
		slices.Sort(streams)
		fmt.Fprintf(w, " (%d to %d, median %d)", streams[0], streams[len(streams)-1], streams[len(streams)/2])
	}
	fmt.Fprintln(w, "\nfaults:")
	for _, name := range slices.Sorted(maps.Keys(in.counts)) {
		fmt.Fprintf(w, "  %4d  %s\n", in.counts[name], name)
	}
	if len(points) > 0 {
		fmt.Fprintln(w, "killed at:")
		for _, name := range slices.Sorted(maps.Keys(points)) {
			fmt.Fprintf(w, "  %4d  %s\n", points[name], name)
		}
	}
}

func sumOf(m map[string]int) int {
	n := 0
	for _, x := range m {
		n += x
	}
	return n
}

// shown is how many violations of one sort are printed; all are in violations.txt.
const shown = 5

func showVerdict(w io.Writer, v *verdict) {
	fmt.Fprintln(w)
	for _, p := range promises {
		n := v.total(p.name)
		word := "kept  "
		if n > 0 {
			word = "BROKEN"
		}
		fmt.Fprintf(w, "%s  %4d %-16s %s\n", word, n, p.name, p.promise)
	}
	printed := map[string]int{}
	for _, x := range v.sorted() {
		if printed[x.what]++; printed[x.what] > shown {
			continue
		}
		fmt.Fprintln(w, x)
	}
}

func (x violation) String() string {
	if x.customer < 0 {
		return fmt.Sprintf("  %s: %s", x.what, x.text)
	}
	return fmt.Sprintf("  %s: customer %d: %s", x.what, x.customer, x.text)
}
