package api

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// mayNote reports whether a refusal of that sort may go to the audit log. Each sort has a rate
// of its own: strangers must neither fill the log nor keep other things out of it. What is
// over it is in the access log.
func (a *API) mayNote(action string) bool {
	_, ok := a.audited.Take(action, time.Now())
	return ok
}

// refusal is the audit entry of a request that is refused.
func (c *call) refusal(action, target string, detail map[string]any) control.Audit {
	e := control.Audit{
		Actor: "anonymous", Action: action, Target: target,
		Detail: map[string]any{"address": c.address.String(), "request_id": c.id},
	}
	maps.Copy(e.Detail, detail)
	if !c.who.nobody() {
		e.Actor = c.actor()
	}
	if c.who.subject.Kind == control.SubjectCustomer {
		e.CustomerID = c.who.subject.ID
	}
	return e
}

// noteRefusal writes to the audit log that a request was refused that honest callers do not
// make. That it was refused does not depend on whether this succeeds.
func (a *API) noteRefusal(c *call, action, target string, detail map[string]any) {
	if !a.mayNote(action) {
		return
	}
	// The caller may be gone by now, on purpose.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx()), 2*time.Second)
	defer cancel()
	err := a.o.Store.InTx(ctx, func(tx *store.Tx) error { return tx.AddAudit(ctx, c.refusal(action, target, detail)) })
	if err != nil {
		a.o.Logger.Error("a refusal is not in the audit log", "request_id", c.id, "action", action, "error", err)
	}
}

// noteDenied notes what was refused before its route was asked, if someone is signed in: of
// strangers there are too many, and nobody's rights are at stake.
func (a *API) noteDenied(c *call, err error) {
	f := (*failure)(nil)
	if c.who.nobody() || !errors.As(err, &f) {
		return
	}
	switch f.kind {
	case kindForgery():
		origin := c.r.Header.Get("Origin")
		if len(origin) > 200 {
			origin = origin[:200]
		}
		a.noteRefusal(c, "request.cross_site", c.route.pattern(), map[string]any{"origin": origin})
	case kindForbidden():
		a.noteRefusal(c, "request.forbidden", c.route.pattern(), map[string]any{"by": c.who.by.String()})
	}
}
