package stripesim

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pageFiles are the templates, and the style.
//
//go:embed pages
var pageFiles embed.FS

func parsePages() (*template.Template, error) { return template.ParseFS(pageFiles, "pages/*.html") }

// Handler serves Stripe's API and the pages of an account of Open.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/", s.serve)
	mux.HandleFunc("GET /{$}", s.front)
	mux.HandleFunc("GET /pay/{id}", s.showSession)
	mux.HandleFunc("POST /pay/{id}", s.paySession)
	mux.HandleFunc("GET /portal/{id}", s.showPortal)
	mux.HandleFunc("POST /portal/{id}", s.changePortal)
	mux.HandleFunc("GET /invoice/{id}", s.showInvoice)
	mux.HandleFunc("POST /invoice/{id}", s.payInvoice)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pageFiles, "pages/style.css")
	})
	// What other sites send from a browser is refused.
	return http.NewCrossOriginProtection().Handler(mux)
}

// view is what a page shows.
type view struct {
	T     words
	Title string
	// Said is what became of what was done last, if it is worth a word.
	Said string

	// Of the pages to pay.
	Plan, Price, Trial string
	Open               bool
	Next               string // where it goes on when nothing is open

	// Of the portal.
	Subscriptions []subscriptionView
	Invoices      []invoiceView
	CardWorks     bool

	// Of the front page.
	Sessions  []link
	Endpoints []endpointView
}

type link struct{ Text, URL string }

type subscriptionView struct {
	ID, Plan, Price, Status, End string
	Live, Ends                   bool
}

type invoiceView struct {
	Number, Amount, Status, URL string
	Open                        bool
}

type endpointView struct {
	URL    string
	Here   bool
	Events int
}

// showSession is the page on which somebody pays.
func (s *Server) showSession(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.tick()
	cs, err := lookUp(s.sessions, "checkout.session", r.PathValue("id"))
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	t := wordsOf(cs.locale, r)
	v := view{T: t, Title: t["pay_title"], Open: cs.status == "open", Next: cs.successURL()}
	switch {
	case cs.status == "complete":
		v.Said = t["paid"]
	case !v.Open:
		v.Said, v.Next = t["closed"], cs.cancel
	case r.URL.Query().Has("declined"):
		v.Said = t["declined"]
	}
	v.Plan, v.Price = s.sold(cs.prices, t)
	if cs.trialDays > 0 {
		v.Trial = fmt.Sprintf(t["trial"], cs.trialDays)
	}
	back := []string{v.Next, cs.cancel}
	s.mu.Unlock()
	s.show(w, http.StatusOK, "pay.html", v, back...)
}

// successURL is where a session leads that is paid, with its id where that is wanted
// (docs.stripe.com/payments/checkout/custom-success-page).
func (o *session) successURL() string {
	return strings.ReplaceAll(o.success, "{CHECKOUT_SESSION_ID}", o.id)
}

// formOf reads what a page's form sends: before the lock is taken, for who sends slowly holds up nobody
// else. Without it the request has been answered.
func formOf(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		p := unread(err)
		http.Error(w, p.message, p.status)
		return nil, false
	}
	return r.PostForm, true
}

func (s *Server) paySession(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	form, ok := formOf(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	s.tick()
	cs, err := lookUp(s.sessions, "checkout.session", id)
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	to := cs.cancel
	do := form.Get("do")
	if do == doPay || do == doDecline {
		to = "/pay/" + id
		if cs.status == "open" {
			err = s.keepAndAct(action{Do: do, On: id})
		}
		switch {
		case cs.status == "complete":
			to = cs.successURL()
		case do == doDecline:
			to += "?declined"
		}
	}
	s.mu.Unlock()
	s.goOn(w, r, to, err)
}

// keepAndAct does what somebody does on a page. The caller holds the lock.
func (s *Server) keepAndAct(a action) error {
	if err := s.keep(entry{Action: &a}); err != nil {
		return err
	}
	return s.act(a)
}

func (s *Server) goOn(w http.ResponseWriter, r *http.Request, to string, err error) {
	if err != nil {
		s.site.log.Warn("what was done on a page has failed", "path", r.URL.Path, "error", err)
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// showPortal is the page on which a customer changes what it has bought.
func (s *Server) showPortal(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.tick()
	p, c, err := s.visit(r.PathValue("id"))
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	t := wordsOf(p.locale, r)
	v := view{T: t, Title: t["portal_title"], CardWorks: !c.declines, Next: p.back}
	for _, o := range slices.Backward(s.subscriptions) {
		if o.customer == c.id {
			v.Subscriptions = append(v.Subscriptions, s.viewOf(o, t))
		}
	}
	for _, in := range slices.Backward(s.invoices) {
		if in.customer == c.id {
			v.Invoices = append(v.Invoices, invoiceView{
				Number: "SIM-" + strconv.Itoa(in.number), Amount: money(in.amount, t), Status: t["status_"+in.status], URL: in.page, Open: in.status == "open",
			})
		}
	}
	s.mu.Unlock()
	s.show(w, http.StatusOK, "portal.html", v, p.back)
}

func (s *Server) viewOf(o *subscription, t words) subscriptionView {
	var prices []string
	for _, it := range o.items {
		prices = append(prices, it.price.id)
	}
	v := subscriptionView{ID: o.id, Status: t["status_"+o.status], Live: !o.over(), Ends: o.cancelAtPeriodEnd}
	if v.Status == "" {
		v.Status = o.status
	}
	v.Plan, v.Price = s.sold(prices, t)
	switch {
	case !v.Live:
	case v.Ends:
		v.End = fmt.Sprintf(t["ends"], day(o.end, t))
	default:
		v.End = fmt.Sprintf(t["renews"], day(o.end, t))
	}
	return v
}

// visit finds a page of the portal, and whose it is.
func (s *Server) visit(id string) (*visit, *customer, error) {
	p, err := lookUp(s.visits, "billing_portal.session", id)
	if err != nil {
		return nil, nil, err
	}
	c, err := lookUp(s.customers, "customer", p.customer)
	return p, c, err
}

func (s *Server) changePortal(w http.ResponseWriter, r *http.Request) {
	form, ok := formOf(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	s.tick()
	p, c, err := s.visit(r.PathValue("id"))
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	to := "/portal/" + p.id
	switch do := form.Get("do"); do {
	case doCard, doDeadCard:
		err = s.keepAndAct(action{Do: do, On: c.id})
	case doCancel, doResume:
		o, none := lookUp(s.subscriptions, "subscription", form.Get("subscription"))
		if none != nil || o.customer != c.id {
			s.mu.Unlock()
			s.notFound(w, r)
			return
		}
		err = s.keepAndAct(action{Do: do, On: o.id})
	default:
		to = p.back
	}
	s.mu.Unlock()
	s.goOn(w, r, to, err)
}

// showInvoice is the page of an invoice, which can be paid there while it is open.
func (s *Server) showInvoice(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.tick()
	in, err := lookUp(s.invoices, "invoice", strings.TrimSuffix(r.PathValue("id"), ".pdf"))
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	locale := ""
	if c, err := lookUp(s.customers, "customer", in.customer); err == nil {
		locale = c.locale
	}
	t := wordsOf(locale, r)
	v := view{
		T: t, Title: fmt.Sprintf(t["invoice_title"], "SIM-"+strconv.Itoa(in.number)), Plan: t["status_"+in.status], Price: money(in.amount, t),
		Open: in.status == "open",
	}
	s.mu.Unlock()
	s.show(w, http.StatusOK, "invoice.html", v)
}

func (s *Server) payInvoice(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSuffix(r.PathValue("id"), ".pdf")
	s.mu.Lock()
	s.tick()
	in, err := lookUp(s.invoices, "invoice", id)
	if err != nil {
		s.mu.Unlock()
		s.notFound(w, r)
		return
	}
	if in.status == "open" {
		err = s.keepAndAct(action{Do: doPay, On: id})
	}
	s.mu.Unlock()
	s.goOn(w, r, "/invoice/"+id, err)
}

// front says what this is, and what waits.
func (s *Server) front(w http.ResponseWriter, r *http.Request) {
	t := wordsOf("", r)
	v := view{T: t, Title: t["front_title"]}
	s.mu.Lock()
	s.tick()
	for _, cs := range slices.Backward(s.sessions) {
		if cs.status == "open" {
			plan, price := s.sold(cs.prices, t)
			v.Sessions = append(v.Sessions, link{Text: plan + ", " + price, URL: cs.page})
		}
	}
	for _, o := range s.endpoints {
		if o.status == "enabled" {
			v.Endpoints = append(v.Endpoints, endpointView{URL: o.url, Here: here(o.url), Events: len(o.waits)})
		}
	}
	s.mu.Unlock()
	s.show(w, http.StatusOK, "front.html", v)
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	t := wordsOf("", r)
	s.show(w, http.StatusNotFound, "said.html", view{T: t, Title: t["not_found"], Said: t["not_found_why"]})
}

// show writes a page whose forms may lead to where the URLs of back are: browsers hold forms to
// what they are allowed also behind redirects.
func (s *Server) show(w http.ResponseWriter, status int, name string, v view, back ...string) {
	var page bytes.Buffer
	if err := s.site.pages.ExecuteTemplate(&page, name, v); err != nil {
		s.site.log.Error("a page cannot be made", "page", name, "error", err)
		http.Error(w, "This page cannot be made.", http.StatusInternalServerError)
		return
	}
	allowed := "'self'"
	for _, text := range back {
		if o := origin(text); o != "" && !strings.Contains(allowed, " "+o) {
			allowed += " " + o
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action "+allowed)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // the reader may have gone
}

// origin is that of a URL, "" of what is none.
func origin(text string) string {
	u, err := url.Parse(text)
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".-:[]", r)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.IndexFunc(u.Host, func(r rune) bool { return !plain(r) }) >= 0 {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// sold says in words what prices are for, and what they cost a month. What is metered is not
// named: it costs nothing until it is used.
func (s *Server) sold(prices []string, t words) (plan, cost string) {
	var names []string
	var cents int64
	for _, id := range prices {
		pr, err := lookUp(s.prices, "price", id)
		if err != nil || pr.usage == "metered" {
			continue
		}
		cents += pr.cents()
		name := pr.product
		if o, err := lookUp(s.products, "product", pr.product); err == nil {
			name = o.name
		}
		names = append(names, name)
	}
	return strings.Join(names, ", "), fmt.Sprintf(t["monthly"], money(cents, t))
}

func money(cents int64, t words) string {
	return fmt.Sprintf("%s%d%s%02d", t["currency"], cents/100, t["point"], cents%100)
}

func day(at time.Time, t words) string { return at.Format(t["day"]) }
