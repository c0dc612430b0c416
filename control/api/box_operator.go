package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
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
	// HTTP has no limit of time of its own: logs may be followed. Default http.DefaultClient.
	HTTP *http.Client
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
	client := o.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
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
	id, err := c.boxID()
	if err != nil {
		return nil, err
	}
	operator, err := a.boxOperator()
	if err != nil {
		return nil, err
	}
	list, err := operator.Events(c.ctx(), id)
	return List[control.BoxEvent]{Items: some(list)}, err
}

// boxID is the box of the path, which is there.
func (c *call) boxID() (string, error) {
	id, err := c.pathID("id")
	if err == nil {
		_, err = c.a.o.Store.Box(c.ctx(), id)
	}
	return id, err
}

// streamBoxLogs passes on what the operator reads, as it comes.
func (a *API) streamBoxLogs(c *call) error {
	id, err := c.boxID()
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
		end, err := a.streams.begin(c.actor())
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
	logs, err := operator.Logs(ctx, id, tail, follow)
	if err != nil {
		return err
	}
	defer logs.Close()
	out := http.NewResponseController(c.w)
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("logs of box %s: %w", id, err)
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
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() == nil:
			panic(http.ErrAbortHandler) // what breaks off must not look whole
		case err != nil:
			return nil
		}
	}
}

// whileWelcome ends a stream when the process does, or the session of who asked.
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
			if p, err := a.authenticate(a.operators, c.r); err == nil && p.nobody() || kindOf(err) == kindUnauthenticated() {
				cancel()
				return
			}
		}
	}
}
