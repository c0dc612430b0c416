package stripesim

import "time"

type endpoint struct {
	id, url, version, secret, status string
	events                           []string
	created                          time.Time

	// Only where events are delivered, see site.
	waits []Event // oldest first
	wake  chan struct{}
}

func (o *endpoint) key() string { return o.id }

func (o *endpoint) object() object {
	return object{
		"id": o.id, "object": "webhook_endpoint", "url": o.url, "api_version": orNil(o.version), "enabled_events": o.events,
		"status": o.status, "created": o.created.Unix(), "livemode": false, "metadata": object{},
	}
}

func (s *Server) createEndpoint(p *params) (any, error) {
	o := &endpoint{
		id: s.id("we"), url: p.get("url"), version: p.get("api_version"), events: p.list("enabled_events"), status: "enabled", created: s.now,
	}
	p.get("description")
	if o.url == "" || len(o.events) == 0 {
		return nil, invalid("url and enabled_events are required")
	}
	o.secret = s.id("whsec")
	s.endpoints = append(s.endpoints, o)
	s.watch(o)
	out := o.object()
	out["secret"] = o.secret // only ever told here
	return out, nil
}

func (s *Server) updateEndpoint(id string, p *params) (any, error) {
	o, err := lookUp(s.endpoints, "webhook endpoint", id)
	if err != nil {
		return nil, err
	}
	if events := p.list("enabled_events"); len(events) > 0 {
		o.events = events
	}
	if disabled := p.get("disabled"); disabled != "" {
		o.status = map[string]string{"true": "disabled", "false": "enabled"}[disabled]
		o.waits = nil
	}
	return o.object(), nil
}
