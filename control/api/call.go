package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	// defaultBody is how many bytes a body may have unless its route says otherwise.
	defaultBody = 64 << 10
	// pageLen and maxPageLen are how many entries a page has, by default and at most.
	pageLen    = 50
	maxPageLen = 500
)

// call is one request on its way through its route.
type call struct {
	a       *API
	w       http.ResponseWriter
	r       *http.Request
	route   *route
	id      string // of the request
	address netip.Addr
	who     principal
	body    []byte // as it was read; nil without one

	// key is the caller's idempotency key with the number of this attempt; nil without one.
	key *attempt
	// status replaces the route's status when it is not 0.
	status int
	// problem is what was answered, for the log; nil if nothing went wrong.
	problem *failure
}

func (c *call) ctx() context.Context { return c.r.Context() }

// actor is who is named in the audit log.
func (c *call) actor() string { return string(c.who.subject.Kind) + ":" + c.who.subject.ID }

// customerID is the customer that called.
func (c *call) customerID() string { return c.who.subject.ID }

// pathID is a part of the path that names something. It is an id as we make them, or
// nothing has it: then Postgres is not asked.
func (c *call) pathID(name string) (string, error) {
	id := c.r.PathValue(name)
	if !plausibleID(id) {
		return "", fail(kindNotFound(), "")
	}
	return id, nil
}

// plausibleID reports whether something can have such an id: ours and Stripe's are letters,
// digits, '_' and '-'.
func plausibleID(id string) bool {
	if id == "" || len(id) > 255 {
		return false
	}
	for _, b := range []byte(id) {
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_') {
			return false
		}
	}
	return true
}

func (c *call) pathNumber(name string) (int64, error) {
	n, err := strconv.ParseInt(c.r.PathValue(name), 10, 64)
	if err != nil || n < 1 {
		return 0, fail(kindNotFound(), "")
	}
	return n, nil
}

// readBody reads what the route allows.
func (c *call) readBody() error {
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return nil
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, c.route.maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fail(kindTooLarge(), fmt.Sprintf("A body of this route may have %d bytes.", c.route.maxBody))
	case err != nil:
		return &failure{kind: kindMalformed(), detail: "The body ended before its end.", cause: err}
	}
	c.body = b
	return nil
}

// decode reads the body into v: one JSON object with known fields only.
func (c *call) decode(v any) error {
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if len(c.body) > 0 && (err != nil || mediaType != "application/json") {
		return fail(kindMediaType(), "Send the body with Content-Type: application/json.")
	}
	if len(bytes.TrimSpace(c.body)) == 0 {
		return fail(kindMalformed(), "A body is needed: a JSON object.")
	}
	if !utf8.Valid(c.body) {
		return fail(kindMalformed(), "The body is not UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return explainJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail(kindMalformed(), "There is something behind the JSON object.")
	}
	return nil
}

// explainJSON says what is wrong with a body, in words and not in Go types.
func explainJSON(err error) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fail(kindMalformed(), fmt.Sprintf("The body is not JSON from byte %d on.", syntax.Offset))
	case errors.As(err, &wrong) && wrong.Field == "":
		return fail(kindMalformed(), "The body has to be a JSON object.")
	case errors.As(err, &wrong):
		return invalid(wrong.Field, "it may not be "+article(wrong.Value))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fail(kindMalformed(), "The JSON ends too early.")
	}
	if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
		name = strings.Trim(name, `"`)
		return &failure{kind: kindInvalid(), detail: "There is no field " + strconv.Quote(name) + " here.", fields: map[string]string{name: "unknown"}}
	}
	return &failure{kind: kindMalformed(), detail: "The body cannot be read.", cause: err}
}

func article(value string) string {
	switch {
	case strings.HasPrefix(value, "number "):
		return "the " + value
	case value == "object" || value == "array":
		return "an " + value
	}
	return "a " + value
}

// page is which part of a list is asked for.
type page struct {
	after  control.PageKey // for lists by age and id
	before int64           // for lists by number
	limit  int
}

// List is one page of a list. Next is the cursor of the next one; without it, this is the last.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// readPage reads the query parameters limit and cursor.
func (c *call) readPage() (page, error) {
	p := page{limit: pageLen}
	q := c.r.URL.Query()
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxPageLen {
			return p, invalid("limit", fmt.Sprintf("it must be a number in 1…%d", maxPageLen))
		}
		p.limit = n
	}
	if s := q.Get("cursor"); s != "" {
		if err := p.parse(s); err != nil {
			return p, invalid("cursor", "it must be what the page before said is next")
		}
	}
	return p, nil
}

func (p *page) parse(cursor string) error {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return err
	}
	at, id, _ := strings.Cut(string(b), " ")
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil || id != "" && !plausibleID(id) {
		return fmt.Errorf("cursor: %w", control.ErrInvalid)
	}
	if id == "" {
		p.before = n
		return nil
	}
	p.after = control.PageKey{At: time.UnixMicro(n).UTC(), ID: id}
	return nil
}

func cursorOf(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", at.UnixMicro(), id))
}

func cursorOfNumber(n int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, n, 10))
}

// listed makes a page of entries, of which one more than p.limit was read if there are more.
func listed[T any](items []T, p page, cursor func(T) string) List[T] {
	l := List[T]{Items: items}
	if len(items) > p.limit {
		l.Items = items[:p.limit]
		l.Next = cursor(l.Items[p.limit-1])
	}
	if l.Items == nil {
		l.Items = []T{}
	}
	return l
}

// interval reads the query parameters from and to, of at most longest.
func (c *call) interval(longest time.Duration) (from, to time.Time, err error) {
	q := c.r.URL.Query()
	read := func(name string) (t time.Time) {
		if s := q.Get(name); s != "" && err == nil {
			if t, err = time.Parse(time.RFC3339, s); err != nil {
				err = invalid(name, "it must be a time such as 2026-01-31T00:00:00Z")
			}
		}
		return t.UTC()
	}
	from, to = read("from"), read("to")
	switch {
	case err != nil:
		return from, to, err
	case from.IsZero() != to.IsZero():
		return from, to, invalid("from", "give both from and to, or neither")
	case !from.IsZero() && !from.Before(to):
		return from, to, invalid("from", "it must be before to")
	case to.Sub(from) > longest:
		return from, to, invalid("to", fmt.Sprintf("it may be at most %d days after from", longest/(24*time.Hour)))
	}
	return from, to, nil
}

// choice reads a query parameter that has few values; "" if it is left out.
func (c *call) choice(name string, values []string) (string, error) {
	v := c.r.URL.Query().Get(name)
	if v != "" && !slices.Contains(values, v) {
		return "", invalid(name, "there are "+strings.Join(values, ", "))
	}
	return v, nil
}

// text checks a text that people wrote: trimmed, printable, 1…longest characters.
func text(field, s string, longest int) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", invalid(field, "it is required")
	case utf8.RuneCountInString(s) > longest:
		return "", invalid(field, fmt.Sprintf("it may have %d characters", longest))
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }):
		return "", invalid(field, "it may not contain control characters")
	}
	return s, nil
}
