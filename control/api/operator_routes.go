package api

import (
	"net/http"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// operatorRoutes is the table of the operators' handler. Support looks; operators change what
// can be changed back; admins also what cannot.
func (a *API) operatorRoutes() []route {
	rows := a.sessionRoutes(a.operators, a.serveOperatorSignIn, OperatorSignIn{}, Renewal{}, everyOperator())
	rows = append(rows, a.operatorCustomerRoutes()...)
	rows = append(rows, a.operatorBoxRoutes()...)
	rows = append(rows, a.operatorTokenRoutes()...)
	return append(rows, a.platformRoutes()...)
}

func (a *API) operatorCustomerRoutes() []route {
	status := parameter{"status", "Of this status only.", object{"type": "string", "enum": texts(
		control.CustomerPending, control.CustomerActive, control.CustomerSuspended, control.CustomerCancelled)}}
	search := parameter{"search", "Whose e-mail address or name begins so, in any case.", object{"type": "string", "minLength": 1, "maxLength": 200}}
	used := parameter{"used_from", "Who has used so many percent, at least, of the limit of the present period; 0 for all that have one.",
		object{"type": "integer", "minimum": 0, "maximum": MaxUsedFrom}}
	return []route{
		{method: http.MethodGet, path: "/v1/customers", who: everyOperator(), serve: a.serveCustomers,
			op: operation{id: "listCustomers", tag: "customers", summary: "Customers, oldest first", query: append(paging(), status, search, used), status: http.StatusOK, answer: List[control.ListedCustomer]{},
				about: "Each with what is used of the limit of its present period, if it has one."}},
		{method: http.MethodPost, path: "/v1/customers", who: operatorsAndAdmins(), serve: a.serveNewCustomer,
			op: operation{id: "createCustomer", tag: "customers", summary: "Make a customer that need not pay", body: NewCustomer{}, status: http.StatusCreated, answer: customers.Created{}}},
		{method: http.MethodGet, path: "/v1/customers/{id}", who: everyOperator(), serve: a.serveCustomer,
			op: operation{id: "getCustomer", tag: "customers", summary: "A customer", status: http.StatusOK, answer: CustomerDetails{}}},
		{method: http.MethodDelete, path: "/v1/customers/{id}", who: adminsOnly(), serve: a.serveDeleteCustomer, publishes: true,
			op: operation{id: "deleteCustomer", tag: "customers", summary: "Delete a customer", status: http.StatusNoContent,
				about: deletionAbout}},
		{method: http.MethodPost, path: "/v1/customers/{id}/suspend", who: operatorsAndAdmins(), publishes: true, serve: a.serveStatus((*customers.Service).SuspendCustomer),
			op: operation{id: "suspendCustomer", tag: "customers", summary: "Refuse all requests of a customer", body: Reason{}, status: http.StatusOK, answer: control.Customer{}}},
		{method: http.MethodPost, path: "/v1/customers/{id}/resume", who: operatorsAndAdmins(), publishes: true, serve: a.serveStatus((*customers.Service).ResumeCustomer),
			op: operation{id: "resumeCustomer", tag: "customers", summary: "Serve a suspended customer again", body: Reason{}, status: http.StatusOK, answer: control.Customer{}}},
		{method: http.MethodGet, path: "/v1/customers/{id}/usage", who: everyOperator(), serve: a.serveCustomerUsage,
			op: operation{id: "getCustomerUsage", tag: "customers", summary: "What a customer used, by day and model", query: times("Used"), status: http.StatusOK, answer: Usage{}}},
		{method: http.MethodGet, path: "/v1/customers/{id}/quota", who: everyOperator(), serve: a.serveQuota,
			op: operation{id: "getQuota", tag: "quota", summary: "The limit of the present period, and what is used of it", status: http.StatusOK, answer: PeriodUsage{}}},
		{method: http.MethodPost, path: "/v1/customers/{id}/quota", who: operatorsAndAdmins(), serve: a.serveChangeQuota, publishes: true,
			op: operation{id: "changeQuota", tag: "quota", summary: "Change the limit of the present period", body: QuotaChange{}, status: http.StatusOK, answer: QuotaChanged{},
				about: "It takes effect at once, also for requests in flight. The answer says which proxies apply it already, and how long that took."}},
	}
}

func (a *API) operatorTokenRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/tokens", who: everyOperator(), serve: a.serveTokens,
			op: operation{id: "listTokens", tag: "tokens", summary: "Tokens, oldest first, revoked ones too", query: append(paging(), ofOne()), status: http.StatusOK, answer: List[control.ProxyToken]{}}},
		{method: http.MethodPost, path: "/v1/customers/{id}/tokens", who: operatorsAndAdmins(), serve: a.serveNewToken, publishes: true,
			op: operation{id: "createToken", tag: "tokens", summary: "Make a token", body: NewToken{}, optional: true, status: http.StatusCreated, answer: CreatedToken{},
				about: "Other tokens of the box stay good."}},
		{method: http.MethodPost, path: "/v1/tokens/{id}/rotate", who: operatorsAndAdmins(), serve: a.serveRotateToken, publishes: true,
			op: operation{id: "rotateToken", tag: "tokens", summary: "Replace a token", body: Rotation{}, optional: true, status: http.StatusCreated, answer: Rotated{},
				about: "Both are good for the overlap; then the old one is revoked."}},
		{method: http.MethodDelete, path: "/v1/tokens/{id}", who: operatorsAndAdmins(), serve: a.serveRevokeToken, publishes: true,
			op: operation{id: "revokeToken", tag: "tokens", summary: "Revoke a token", status: http.StatusOK, answer: control.ProxyToken{},
				about: "From the answer 200 on it is refused by every proxy within a second, and its streams are cut."}},
	}
}

func (a *API) platformRoutes() []route {
	all := parameter{"all", "Those that were replayed or dropped too.", object{"type": "boolean", "default": false}}
	state := parameter{"state", "Of this state only.", object{"type": "string", "enum": jobStates()}}
	return []route{
		tiersRoute(everyOperator(), a.serveTiers),
		{method: http.MethodGet, path: "/v1/jobs", who: everyOperator(), serve: a.serveJobs,
			op: operation{id: "listJobs", tag: "jobs", summary: "Jobs, newest first", query: append(paging(), state), status: http.StatusOK, answer: List[control.Job]{}}},
		{method: http.MethodPost, path: "/v1/jobs/{id}/retry", who: operatorsAndAdmins(), serve: a.serveJob("retry"),
			op: operation{id: "retryJob", tag: "jobs", summary: "Work a job now", status: http.StatusNoContent}},
		{method: http.MethodPost, path: "/v1/jobs/{id}/cancel", who: operatorsAndAdmins(), serve: a.serveJob("cancel"),
			op: operation{id: "cancelJob", tag: "jobs", summary: "Work a job no more", status: http.StatusNoContent, about: "Not one that revokes a token."}},
		{method: http.MethodGet, path: "/v1/dead-letters", who: operatorsAndAdmins(), serve: a.serveDeadLetters,
			op: operation{id: "listDeadLetters", tag: "ledger", summary: "What could not be recorded, newest first", query: append(paging(), all), status: http.StatusOK, answer: List[control.DeadLetter]{}}},
		{method: http.MethodGet, path: "/v1/dead-letters/{id}", who: operatorsAndAdmins(), serve: a.serveDeadLetter,
			op: operation{id: "getDeadLetter", tag: "ledger", summary: "A dead letter", status: http.StatusOK, answer: control.DeadLetter{}}},
		{method: http.MethodPost, path: "/v1/dead-letters/{id}/replay", who: operatorsAndAdmins(), serve: a.serveReplay,
			op: operation{id: "replayDeadLetter", tag: "ledger", summary: "Try again to record it", status: http.StatusOK, answer: Replayed{},
				about: "Each event counts once, however often it is tried."}},
		{method: http.MethodPost, path: "/v1/dead-letters/{id}/drop", who: adminsOnly(), serve: a.serveDrop,
			op: operation{id: "dropDeadLetter", tag: "ledger", summary: "Give it up for ever", body: Reason{}, status: http.StatusNoContent, about: "What it stands for is not billed."}},
		{method: http.MethodGet, path: "/v1/audit", who: everyOperator(), serve: a.serveAudit,
			op: operation{id: "listAudit", tag: "audit", summary: "The audit log, newest first", query: append(paging(), ofOne()), status: http.StatusOK, answer: List[control.AuditEntry]{}}},
		{method: http.MethodGet, path: "/v1/usage", who: everyOperator(), serve: a.servePlatformUsage,
			op: operation{id: "getPlatformUsage", tag: "platform", summary: "What is used in the present periods, by tier", status: http.StatusOK, answer: PlatformUsage{}}},
		{method: http.MethodGet, path: "/v1/replicas", who: everyOperator(), serve: a.serveReplicas,
			op: operation{id: "listReplicas", tag: "platform", summary: "Proxies, those seen last first", status: http.StatusOK, answer: List[control.Replica]{}}},
		{method: http.MethodGet, path: "/v1/traffic", who: everyOperator(), stream: a.streamTraffic,
			op: operation{id: "streamTraffic", tag: "platform", summary: "What passes through the proxies, as it does", status: http.StatusOK, media: "text/event-stream",
				events: map[string]any{"traffic": Traffic{}},
				about:  "Server-sent events: traffic (a Traffic), at the beginning and every few seconds, and away (an empty object), once, while it is not known. It ends after an hour at most: connect again."}},
		{method: http.MethodGet, path: "/v1/stripe-events", who: everyOperator(), serve: a.serveStripeEvents,
			op: operation{id: "listStripeEvents", tag: "billing", summary: "What Stripe sent, newest first, without its content", query: paging(), status: http.StatusOK, answer: List[control.StripeEvent]{}}},
		{method: http.MethodPost, path: "/v1/stripe-events/{id}/retry", who: operatorsAndAdmins(), serve: a.serveRetryStripeEvent,
			op: operation{id: "retryStripeEvent", tag: "billing", summary: "Process an event now", body: Again{}, optional: true, status: http.StatusNoContent}},
		{method: http.MethodGet, path: "/v1/operators", who: adminsOnly(), serve: a.serveOperators,
			op: operation{id: "listOperators", tag: "operators", summary: "Operators, oldest first", status: http.StatusOK, answer: List[control.Operator]{}}},
		{method: http.MethodPost, path: "/v1/operators", who: adminsOnly(), serve: a.serveNewOperator,
			op: operation{id: "createOperator", tag: "operators", summary: "Make an operator", body: NewOperator{}, status: http.StatusCreated, answer: control.Operator{}}},
		{method: http.MethodDelete, path: "/v1/operators/{id}", who: adminsOnly(), serve: a.serveDisableOperator,
			op: operation{id: "disableOperator", tag: "operators", summary: "Keep an operator out for good", status: http.StatusNoContent}},
	}
}
