package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// Logs and events come from the operator of the boxes, logs as they are written.
func TestLogsAndEvents(t *testing.T) {
	t.Parallel()
	lines := make(chan string)
	gone := make(chan struct{})
	operator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+fakeOperatorKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/events"):
			_ = json.NewEncoder(w).Encode([]control.BoxEvent{{Time: time.Unix(1e9, 0).UTC(), Type: "Warning", Reason: "BackOff", Message: "x", Object: "Pod/p", Count: 3}})
		case r.URL.Query().Get("tail") == "7":
			http.Error(w, "its pod is gone", http.StatusNotFound)
		case r.URL.Query().Get("follow") == "true":
			for {
				select {
				case line := <-lines:
					fmt.Fprintln(w, line)
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					close(gone)
					return
				}
			}
		default:
			fmt.Fprintf(w, "%s tail %s\n", r.URL.Path, r.URL.Query().Get("tail"))
		}
	}))
	t.Cleanup(operator.Close)
	e := newEnv(t, func(o *api.Options) { o.BoxOperator = &api.BoxOperator{URL: operator.URL, Key: fakeOperatorKey} })
	_, c := e.customer()
	_, o := e.operator(control.RoleOperator)
	box := c.box()
	path := "/v1/boxes/" + box.ID
	var events api.List[control.BoxEvent]
	if o.want(http.StatusOK, "GET", path+"/events", nil).into(t, &events); len(events.Items) != 1 || events.Items[0].Reason != "BackOff" || events.Items[0].Count != 3 {
		t.Errorf("%+v", events)
	}
	for query, want := range map[string]string{"": "200", "?tail=5": "5"} {
		a := o.want(http.StatusOK, "GET", path+"/logs"+query, nil)
		if string(a.body) != "/boxes/"+box.ID+"/logs tail "+want+"\n" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %s", query, a.body)
		}
	}
	for query, want := range map[string]int{"?tail=0": http.StatusUnprocessableEntity, "?tail=x": http.StatusUnprocessableEntity, "?tail=7": http.StatusNotFound} {
		if a := o.do("GET", path+"/logs"+query, nil); a.status != want {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := o.do("GET", "/v1/boxes/nobody/logs", nil); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.operators+path+"/logs?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range o.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	go func() { lines <- "one" }()
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", res, err)
	}
	r := bufio.NewReader(res.Body)
	for _, line := range []string{"one", "two", "three"} {
		if line != "one" {
			lines <- line // it is not sent before the one before it was read here
		}
		if got, err := r.ReadString('\n'); err != nil || got != line+"\n" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	// What the api's end ends, ends at the operator as well.
	e.Drain()
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	_ = res.Body.Close()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the operator goes on")
	}

	operator.Close()
	if a := o.do("GET", path+"/events", nil); a.problem() != "unavailable" {
		t.Errorf("without the operator: %d %s", a.status, a.body)
	}
	if strings.Contains(e.log.String(), fakeOperatorKey) {
		t.Error("the key is in the log")
	}
}

// logsOf asks for the logs of a box, as a stream.
func (c *client) logsOf(ctx context.Context, base, box, query string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/boxes/"+box+"/logs"+query, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range c.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return http.DefaultClient.Do(req)
}

// Logs whose rest did not come do not look whole; who read them is in the audit log.
func TestLogsThatBreakOff(t *testing.T) {
	t.Parallel()
	operator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A line now and then, and no end.
		for r.Context().Err() == nil {
			fmt.Fprintln(w, "one")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(operator.Close)
	e := newEnv(t, func(o *api.Options) { o.BoxOperator = &api.BoxOperator{URL: operator.URL, Key: fakeOperatorKey} })
	customer, c := e.customer()
	id, o := e.operator(control.RoleOperator)
	box := c.box()
	res, err := o.logsOf(t.Context(), e.operators, box.ID, "?tail=3")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", res, err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); !strings.HasPrefix(string(text), "one\n") || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", text, err)
	}
	if n := e.count("audit_log WHERE action = 'box.logs' AND actor = 'operator:" + id + "' AND target = '" + box.ID + "' AND customer_id = '" + customer + "' AND detail->>'tail' = '3'"); n != "1" {
		t.Errorf("%s entries in the audit log", n)
	}
}

// A gateway that writes nothing, and an operator that takes its time to say so, are followed for longer
// than a request may last; who may not read logs any more stops.
func TestQuietLogsAreFollowed(t *testing.T) {
	t.Parallel()
	late := make(chan string)
	operator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-late:
				fmt.Fprintln(w, line)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(operator.Close)
	e := newEnv(t, func(o *api.Options) { o.BoxOperator = &api.BoxOperator{URL: operator.URL, Key: fakeOperatorKey} })
	_, c := e.customer()
	_, o := e.operator(control.RoleOperator)
	// As cmd/control has it, but shorter.
	server := httptest.NewUnstartedServer(e.Operators())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 4*time.Second, 4*time.Second
	server.Start()
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for _, pause := range []time.Duration{6 * time.Second, 6 * time.Second} {
			time.Sleep(pause)
			select {
			case late <- "late":
			case <-ctx.Done():
			}
		}
	}()
	res, err := o.logsOf(ctx, server.URL, c.box().ID, "?follow=true")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", res, err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for range 2 {
		if line, err := r.ReadString('\n'); err != nil || line != "late\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	e.pg.Query("UPDATE operators SET role = 'support'")
	ended := time.AfterFunc(90*time.Second, cancel)
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 || !ended.Stop() {
		t.Errorf("who is of support now still follows: %q, %v", rest, err)
	}
}

// The key of the operator goes nowhere else, whatever the operator answers.
func TestOperatorIsNotFollowedElsewhere(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	t.Cleanup(elsewhere.Close)
	operator := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/secret", http.StatusFound))
	t.Cleanup(operator.Close)
	o := &api.BoxOperator{URL: operator.URL, Key: fakeOperatorKey}
	if _, err := o.Events(t.Context(), "b1"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("events: %v", err)
	}
	if logs, err := o.Logs(t.Context(), "b1", 1, false); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("logs: %v, %v", logs, err)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d requests went elsewhere, such as %s", n, <-asked)
	}
}
