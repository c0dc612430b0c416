package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// maxEvents is how many bytes a list of events may have.
const maxEvents = 4 << 20

// BoxOperator asks the operator of the boxes, who alone has access to Kubernetes, for what is
// in no database. Errors are control.ErrNotFound if there is no such box or nothing of it runs,
// and control.ErrUnavailable.
type BoxOperator struct {
	URL string // of its listener, such as http://operator:8081
	Key secret.Text

	once   sync.Once
	client *http.Client
}

const (
	dialWithin = 5 * time.Second
	// headWithin is how long the operator may take until it begins to answer.
	headWithin = 10 * time.Second
)

// ownClient asks the operator and nobody else: no proxy of the environment, which would see the key,
// and nothing that an answer sends it to. It has no limit of time for all of an answer: logs
// may be followed.
func (o *BoxOperator) ownClient() *http.Client {
	o.once.Do(func() {
		o.client = &http.Client{
			Transport: &http.Transport{
				DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext, TLSHandshakeTimeout: dialWithin,
				ResponseHeaderTimeout: headWithin, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	})
	return o.client
}

// Logs returns the last lines of a box's gateway as text, and with follow those to come. The
// caller closes it.
func (o *BoxOperator) Logs(ctx context.Context, boxID string, tail int, follow bool) (io.ReadCloser, error) {
	query := url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
	res, err := o.ask(ctx, boxID, "logs", query)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Events lists what Kubernetes tells about a box, newest last.
func (o *BoxOperator) Events(ctx context.Context, boxID string) ([]control.BoxEvent, error) {
	res, err := o.ask(ctx, boxID, "events", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list []control.BoxEvent
	if err := json.NewDecoder(io.LimitReader(res.Body, maxEvents)).Decode(&list); err != nil {
		return nil, fmt.Errorf("events of box %s: the operator's answer: %w", boxID, errors.Join(err, control.ErrUnavailable))
	}
	return list, nil
}

func (o *BoxOperator) ask(ctx context.Context, boxID, what string, query url.Values) (*http.Response, error) {
	op := what + " of box " + boxID
	target := strings.TrimSuffix(o.URL, "/") + "/boxes/" + url.PathEscape(boxID) + "/" + what
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Authorization", "Bearer "+o.Key.Reveal())
	res, err := o.ownClient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: the operator: %w", op, errors.Join(err, control.ErrUnavailable))
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1000)) // for the log; less of it is fine
	kind := control.ErrUnavailable
	if res.StatusCode == http.StatusNotFound {
		kind = control.ErrNotFound
	}
	return nil, fmt.Errorf("%s: %w: the operator answered %d: %s", op, kind, res.StatusCode, strings.TrimSpace(string(said)))
}

const (
	logLines    = 200
	maxLogLines = 10_000
)

// boxOperator returns who is asked for what is in the cluster.
func (a *API) boxOperator() (*BoxOperator, error) {
	if a.o.BoxOperator == nil {
		return nil, fail(kindUnavailable(), "The operator of the boxes cannot be reached from here: OPERATOR_URL and OPERATOR_KEY are not set.")
	}
	return a.o.BoxOperator, nil
}

func (a *API) serveBoxEvents(c *call) (any, error) {
	box, err := c.box()
	if err != nil {
		return nil, err
	}
	operator, err := a.boxOperator()
	if err != nil {
		return nil, err
	}
	list, err := operator.Events(c.ctx(), box.ID)
	return List[control.BoxEvent]{Items: some(list)}, err
}

// box is the box of the path.
func (c *call) box() (b control.Box, err error) {
	id, err := c.pathID("id")
	if err == nil {
		b, err = c.a.o.Store.Box(c.ctx(), id)
	}
	return b, err
}

// streamBoxLogs passes on what the operator reads, as it comes.
func (a *API) streamBoxLogs(c *call) error {
	box, err := c.box()
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	tail := logLines
	if s := q.Get("tail"); s != "" {
		if tail, err = strconv.Atoi(s); err != nil || tail < 1 || tail > maxLogLines {
			return invalid("tail", fmt.Sprintf("it must be a number in 1…%d", maxLogLines))
		}
	}
	follow := q.Get("follow") == "true"
	operator, err := a.boxOperator()
	if err != nil {
		return err
	}
	within := handleWithin
	if follow {
		end, err := a.follows.begin(c.actor())
		if err != nil {
			return err
		}
		defer end()
		within = accessFor
	}
	ctx, cancel := context.WithTimeout(c.ctx(), within)
	defer cancel()
	if follow {
		go a.whileWelcome(ctx, cancel, c)
	}
	// The server's limits are for requests that end: a gateway may write nothing for long, and the
	// operator take its time to begin.
	out := http.NewResponseController(c.w)
	if err := errors.Join(out.SetReadDeadline(time.Time{}), out.SetWriteDeadline(time.Now().Add(headWithin+2*writeWithin))); err != nil {
		return fmt.Errorf("logs of box %s: %w", box.ID, err)
	}
	// They may hold what customers wrote: who read them is known, before they are read.
	if err := a.o.Store.InTx(ctx, func(tx *store.Tx) error {
		return tx.AddAudit(ctx, control.Audit{
			Actor: c.actor(), Action: "box.logs", CustomerID: box.CustomerID, Target: box.ID, Detail: map[string]any{"tail": tail, "follow": follow},
		})
	}); err != nil {
		return err
	}
	logs, err := operator.Logs(ctx, box.ID, tail, follow)
	if err != nil {
		return err
	}
	defer logs.Close()
	if err := out.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return fmt.Errorf("logs of box %s: %w", box.ID, err)
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.w.Header().Set("X-Accel-Buffering", "no")
	c.w.WriteHeader(http.StatusOK)
	_ = out.Flush() // who waits for the first line sees that it has begun; the next write fails if this did
	buf := make([]byte, 16<<10)
	for {
		n, err := logs.Read(buf)
		if n > 0 {
			if err := out.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
				return nil
			}
			if _, err := c.w.Write(buf[:n]); err != nil || out.Flush() != nil { // #nosec G705 -- text/plain with nosniff
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF), err != nil && follow && ctx.Err() != nil:
			// What is followed ends by the clock, with the process, or with the session. The last write may
			// be long ago, and the end has to be written too.
			_ = out.SetWriteDeadline(time.Now().Add(writeWithin))
			return nil
		case err != nil:
			panic(http.ErrAbortHandler) // what breaks off must not look whole
		}
	}
}

// whileWelcome ends a stream when the process does, or when who asked may not ask any more.
func (a *API) whileWelcome(ctx context.Context, cancel func(), c *call) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.draining:
			cancel()
			return
		case <-tick.C:
			if p, err := a.authenticate(a.operators, c.r); err == nil && !c.route.who.may(p) || kindOf(err) == kindUnauthenticated() {
				cancel()
				return
			}
		}
	}
}
