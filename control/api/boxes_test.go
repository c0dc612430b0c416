package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

const (
	fakeBot         = "100000:a-fake-token-of-no-bot-at-all-x"
	fakeOperatorKey = "a fake key of the operator"
)

// box is the one box of a customer.
func (c *client) box() control.BoxDetail {
	c.t.Helper()
	var l api.List[control.BoxDetail]
	c.want(http.StatusOK, "GET", "/v1/me/boxes", nil).into(c.t, &l)
	if len(l.Items) != 1 {
		c.t.Fatalf("%+v", l)
	}
	return l.Items[0]
}

// A customer sees its box and changes what it may; what its plan does not allow says why.
func TestCustomersChangeTheirBox(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	_, other := e.customer()
	box := c.box()
	path := "/v1/me/boxes/" + box.ID
	if box.Wants != control.BoxRun || box.Generation != 1 || box.Steps == nil || box.HasTelegramToken {
		t.Errorf("%+v", box)
	}
	c.want(http.StatusOK, "PATCH", path+"/settings", `{"time_zone":"Europe/Lisbon","thinking":"high"}`).into(t, &box)
	if box.Settings.TimeZone != "Europe/Lisbon" || box.Generation != 2 || box.State != control.BoxPending {
		t.Errorf("%+v", box)
	}
	var settings control.BoxSettings
	if c.want(http.StatusOK, "GET", path+"/settings", nil).into(t, &settings); settings.Thinking != "high" {
		t.Errorf("%+v", settings)
	}
	for body, field := range map[string]string{
		`{"time_zone":"Mars"}`: "time_zone", `{"thinking":"max"}`: "thinking", `{"language":"fr"}`: "language",
		`{"telegram_users":[1,2,3,4,5,6,7,8,9,10,11]}`: "telegram_users", `{"system_prompt":"` + strings.Repeat("x", 8001) + `"}`: "system_prompt",
	} {
		a := c.do("PATCH", path+"/settings", body)
		var p api.Problem
		if a.into(t, &p); a.status != http.StatusUnprocessableEntity || p.Fields[field] == "" {
			t.Errorf("%.40s: %d %s", body, a.status, a.body)
		}
	}
	// The bot's token goes in and never comes out.
	c.want(http.StatusOK, "PUT", path+"/telegram-token", api.TelegramToken{Token: fakeBot}).into(t, &box)
	if !box.HasTelegramToken || box.Generation != 3 {
		t.Errorf("%+v", box)
	}
	if a := c.do("PUT", path+"/telegram-token", api.TelegramToken{Token: fakeBot[:20]}); a.problem() != "invalid" || strings.Contains(string(a.body), fakeBot[:20]) {
		t.Errorf("%d %s", a.status, a.body)
	}
	_, third := e.customer()
	if a := third.do("PUT", "/v1/me/boxes/"+third.box().ID+"/telegram-token", api.TelegramToken{Token: fakeBot}); a.problem() != "invalid" || !strings.Contains(string(a.body), "another box has this bot") {
		t.Errorf("another's bot: %d %s", a.status, a.body)
	}
	_, admin := e.operator(control.RoleAdmin)
	for _, a := range []answer{
		c.want(http.StatusOK, "GET", path, nil), c.want(http.StatusOK, "GET", "/v1/me/export", nil), admin.want(http.StatusOK, "GET", "/v1/boxes/"+box.ID, nil),
		admin.want(http.StatusOK, "GET", "/v1/audit", nil), admin.want(http.StatusOK, "GET", "/v1/jobs", nil),
	} {
		if strings.Contains(string(a.body), fakeBot[7:]) {
			t.Errorf("the token is shown: %s", a.body)
		}
	}
	if log := e.log.String(); strings.Contains(log, fakeBot[7:]) || strings.Contains(log, fakeBot[:20]) {
		t.Error("the token is in the log")
	}
	if c.want(http.StatusOK, "POST", path+"/restart", nil, api.KeyHeader, "once").into(t, &box); box.Restart != 1 || box.Generation != 4 {
		t.Errorf("%+v", box)
	}
	if c.want(http.StatusOK, "POST", path+"/restart", nil, api.KeyHeader, "once").into(t, &box); box.Restart != 1 {
		t.Errorf("the same request did it again: %+v", box)
	}
	// Another language of the account is that of the box, which has chosen none.
	c.want(http.StatusOK, "PATCH", "/v1/me", `{"language":"pt-BR"}`)
	if box = c.box(); box.Generation != 5 {
		t.Errorf("%+v", box)
	}
	c.want(http.StatusOK, "PATCH", path+"/settings", `{"language":"en"}`)
	c.want(http.StatusOK, "PATCH", "/v1/me", `{"language":"en"}`)
	if box = c.box(); box.Generation != 6 {
		t.Errorf("%+v", box)
	}
	for _, r := range [][2]string{{"GET", ""}, {"GET", "/settings"}, {"PATCH", "/settings"}, {"PUT", "/telegram-token"}, {"POST", "/restart"}} {
		var body any
		if r[0] == "PATCH" || r[0] == "PUT" {
			body = `{}`
		}
		if a := other.do(r[0], path+r[1], body); a.status != http.StatusNotFound {
			t.Errorf("another's %s %s: %d %s", r[0], r[1], a.status, a.body)
		}
	}
	admin.want(http.StatusOK, "POST", "/v1/boxes/"+box.ID+"/suspend", api.Reason{Reason: "test"})
	if a := c.do("POST", path+"/restart", nil); a.problem() != "conflict" || !strings.Contains(string(a.body), "suspended") {
		t.Errorf("restart of a suspended box: %d %s", a.status, a.body)
	}
	admin.want(http.StatusOK, "POST", "/v1/boxes/"+box.ID+"/destroy", api.Reason{Reason: "test"})
	if a := c.do("PATCH", path+"/settings", `{"thinking":"low"}`); a.problem() != "conflict" {
		t.Errorf("settings of a box that is to be destroyed: %d %s", a.status, a.body)
	}
}

// Operators decide on a box, once per key and with a reason.
func TestOperatorsChangeBoxes(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	_, admin := e.operator(control.RoleAdmin)
	box := c.box()
	path := "/v1/boxes/" + box.ID + "/"
	for i, action := range []string{"restart", "rotate-token", "suspend", "resume", "resize", "destroy"} {
		body := map[string]string{"reason": "why " + action}
		if action == "resize" {
			body["size"] = "team"
		}
		for _, again := range []bool{false, true} {
			status := http.StatusOK
			if again && action == "destroy" {
				status = http.StatusAccepted // what was noted was noted before the proxies were told
			}
			admin.want(status, "POST", path+action, body, api.KeyHeader, action).into(t, &box)
			if box.Generation != int64(2+i) {
				t.Errorf("%s: %+v", action, box)
			}
		}
		delete(body, "reason")
		if a := admin.do("POST", path+action, body); a.problem() != "invalid" {
			t.Errorf("%s without a reason: %d %s", action, a.status, a.body)
		}
		if n := e.count("audit_log WHERE actor LIKE 'operator:%' AND detail->>'reason' = 'why " + action + "'"); n != "1" {
			t.Errorf("%s: %s entries with the reason", action, n)
		}
	}
	admin.want(http.StatusOK, "GET", "/v1/boxes/"+box.ID, nil).into(t, &box)
	if box.Restart != 1 || box.Rotation != 1 || box.Size != "team" || box.Wants != control.BoxDestroy || box.Held {
		t.Errorf("%+v", box)
	}
	if a := admin.do("POST", path+"resize", map[string]string{"size": "huge", "reason": "x"}); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := admin.do("POST", path+"restart", map[string]string{"reason": "x"}); a.problem() != "invalid" || !strings.Contains(string(a.body), "destroyed") {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Another one in its place, once.
	var next control.BoxDetail
	for range 2 {
		admin.want(http.StatusCreated, "POST", "/v1/customers/"+box.CustomerID+"/boxes", api.Reason{Reason: "instead"}, api.KeyHeader, "one").into(t, &next)
	}
	if next.ID == box.ID || next.Namespace != box.Namespace+"-2" || next.Wants != control.BoxRun || next.Generation != 1 || e.count("boxes") != "2" {
		t.Errorf("%+v", next)
	}
	admin.want(http.StatusOK, "POST", "/v1/customers/"+box.CustomerID+"/suspend", api.Reason{Reason: "x"})
	if a := admin.do("POST", "/v1/customers/"+box.CustomerID+"/boxes", api.Reason{Reason: "x"}); a.problem() != "invalid" || !strings.Contains(string(a.body), "suspended") {
		t.Errorf("a box of a customer that is not served: %d %s", a.status, a.body)
	}
	var l api.List[control.Box]
	for query, want := range map[string]int{"?state=pending": 2, "?state=active": 0, "?state=pending&customer=" + box.CustomerID: 2} {
		if admin.want(http.StatusOK, "GET", "/v1/boxes"+query, nil).into(t, &l); len(l.Items) != want {
			t.Errorf("%s: %+v", query, l)
		}
	}
	if a := admin.do("GET", "/v1/boxes?state=gone", nil); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, what := range []string{"logs", "events"} {
		if a := admin.do("GET", path+what, nil); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "OPERATOR_URL") {
			t.Errorf("%s without the operator: %d %s", what, a.status, a.body)
		}
	}
}

// What customers have chosen is theirs: operators see no more of it than they need, and nothing of it is
// kept under their names.
func TestOperatorsDoNotReadPrompts(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	_, admin := e.operator(control.RoleAdmin)
	_, support := e.operator(control.RoleSupport)
	e.pg.Query(`UPDATE boxes SET settings = '{"system_prompt": "my secret é", "telegram_users": [4711]}'`)
	box := c.box()
	path := "/v1/boxes/" + box.ID
	if box.Settings.SystemPrompt != "my secret é" || len(box.Settings.TelegramUsers) != 1 {
		t.Errorf("%+v", box)
	}
	for _, o := range []struct {
		*client
		users int
	}{{admin, 1}, {support, 0}} {
		var d api.OperatorsBox
		a := o.want(http.StatusOK, "GET", path, nil)
		a.into(t, &d)
		if d.SystemPromptLength != 11 || d.TelegramUserCount != 1 || len(d.Settings.TelegramUsers) != o.users || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s", a.body)
		}
	}
	for action, body := range map[string]any{"restart": api.Reason{Reason: "x"}, "resize": api.BoxSize{Size: "team", Reason: "x"}} {
		if a := admin.want(http.StatusOK, "POST", path+"/"+action, body, api.KeyHeader, action); strings.Contains(string(a.body), "secret") || strings.Contains(string(a.body), "4711") {
			t.Errorf("%s: %s", action, a.body)
		}
	}
	admin.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/boxes", api.Reason{Reason: "x"}, api.KeyHeader, "box")
	if n, all := e.count(`idempotency_keys WHERE convert_from(body, 'UTF8') ~ 'secret|4711'`), e.count(`idempotency_keys WHERE convert_from(body, 'UTF8') ~ 'generation'`); n != "0" || all != "3" {
		t.Errorf("%s of %s answers that are kept have settings", n, all)
	}
}

// Customers read of a box what concerns them; what of the cluster is behind it operators see.
func TestCustomersDoNotSeeTheCluster(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	_, support := e.operator(control.RoleSupport)
	e.pg.Query(`UPDATE boxes SET message = 'no room', detail = 'node-7 has a taint'`)
	e.pg.Query(`INSERT INTO box_steps (box_id, customer_id, generation, name, started_at, error, detail)
		SELECT id, customer_id, 1, 'ready', now(), 'no room', 'it was for node-7' FROM boxes`)
	box := c.box()
	if box.Message != "no room" || len(box.Steps) != 1 || box.Steps[0].Error != "no room" {
		t.Errorf("%+v", box)
	}
	path := "/v1/me/boxes/" + box.ID
	for _, a := range []answer{
		c.want(http.StatusOK, "GET", path, nil), c.want(http.StatusOK, "GET", "/v1/me/boxes", nil), c.want(http.StatusOK, "GET", "/v1/me/export", nil),
		c.want(http.StatusOK, "PATCH", path+"/settings", `{"thinking":"low"}`), c.want(http.StatusOK, "POST", path+"/restart", nil),
	} {
		if strings.Contains(string(a.body), "node-7") {
			t.Errorf("a customer reads %s", a.body)
		}
	}
	var d api.OperatorsBox
	support.want(http.StatusOK, "GET", "/v1/boxes/"+box.ID, nil).into(t, &d)
	if d.Message != "no room" || d.Detail != "node-7 has a taint" || len(d.Steps) != 1 || d.Steps[0].Detail != "it was for node-7" || d.Steps[0].Error != "no room" {
		t.Errorf("%+v", d)
	}
}
