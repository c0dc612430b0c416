package stripesim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// portal is a configuration of the billing portal.
type portal struct {
	id       string
	created  time.Time
	settings map[string]string // such as features[subscription_cancel][mode]
}

func (o *portal) key() string { return o.id }

// object has its features off that nobody turned on.
func (o *portal) object() object {
	features := object{}
	for _, name := range []string{
		"customer_update", "invoice_history", "payment_method_update", "subscription_cancel", "subscription_pause", "subscription_update",
	} {
		prefix := "features[" + name + "]"
		f := object{"enabled": o.settings[prefix+"[enabled]"] == "true"}
		switch name {
		case "customer_update":
			updates := []string{}
			for _, k := range slices.Sorted(maps.Keys(o.settings)) {
				if strings.HasPrefix(k, prefix+"[allowed_updates]") {
					updates = append(updates, o.settings[k])
				}
			}
			f["allowed_updates"] = updates
		case "subscription_cancel":
			f["mode"], f["proration_behavior"] = o.settings[prefix+"[mode]"], o.settings[prefix+"[proration_behavior]"]
		case "subscription_update":
			f["default_allowed_updates"], f["proration_behavior"] = []string{}, "none"
		}
		features[name] = f
	}
	metadata := object{}
	for k, v := range o.settings {
		if name, ok := strings.CutPrefix(k, "metadata["); ok {
			metadata[strings.TrimSuffix(name, "]")] = v
		}
	}
	return object{
		"id": o.id, "object": "billing_portal.configuration", "active": true, "application": nil, "created": o.created.Unix(),
		// One that was made by the API never is the default ("The billing portal configuration
		// object", in docs.stripe.com/api/customer_portal/configurations).
		"is_default": false, "features": features, "metadata": metadata, "livemode": false, "updated": o.created.Unix(),
		"business_profile": object{"headline": orNil(o.settings["business_profile[headline]"])},
	}
}

// read takes over what a request says of the configuration.
func (o *portal) read(p *params) {
	for k := range p.form {
		if group, _, _ := strings.Cut(k, "["); group == "features" || group == "metadata" || group == "business_profile" {
			o.settings[k] = p.get(k)
		}
	}
}

func (s *Server) createPortalConfiguration(p *params) (any, error) {
	o := &portal{id: s.id("bpc"), created: s.now, settings: make(map[string]string)}
	o.read(p)
	if !slices.ContainsFunc(slices.Collect(maps.Keys(o.settings)), func(k string) bool { return strings.HasPrefix(k, "features[") }) {
		return nil, invalid("Missing required param: features.")
	}
	s.portals = append(s.portals, o)
	return o.object(), nil
}

func (s *Server) updatePortalConfiguration(id string, p *params) (any, error) {
	o, err := lookUp(s.portals, "configuration", id)
	if err != nil {
		return nil, err
	}
	o.read(p)
	return o.object(), nil
}

// createPortal makes a page of the portal. Nobody has saved settings of it in the dashboard of
// this account, so a configuration has to be named.
func (s *Server) createPortal(p *params) (any, error) {
	c, err := lookUp(s.customers, "customer", p.get("customer"))
	if err != nil {
		return nil, err
	}
	name := p.get("configuration")
	if name == "" {
		return nil, invalid("No configuration provided and your test mode default configuration has not been created.")
	}
	configuration, err := lookUp(s.portals, "configuration", name)
	if err != nil {
		return nil, err
	}
	v := &visit{id: s.id("bps"), customer: c.id, back: p.get("return_url"), locale: p.get("locale")}
	s.visits = append(s.visits, v)
	return object{
		"id": v.id, "object": "billing_portal.session", "customer": c.id, "configuration": configuration.id, "return_url": v.back,
		"created": s.now.Unix(), "livemode": false, "url": s.page("portal", "portal", v.id),
	}, nil
}

// visit is a page of the portal that was made for a customer.
type visit struct{ id, customer, back, locale string }

func (v *visit) key() string    { return v.id }
func (v *visit) object() object { return object{"id": v.id} }

// PortalSetting has someone change a setting of all configurations of the billing portal, such
// as features[subscription_cancel][mode].
func (s *Server) PortalSetting(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.portals {
		o.settings[name] = value
	}
}
