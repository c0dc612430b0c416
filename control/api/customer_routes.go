package api

import (
	"net/http"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// deletionAbout says of a deleted account what is billed, and which data stays where.
const deletionAbout = "The subscription ends at once, and nothing of its price is paid back. What was used above the limit until then is billed by a last invoice; " +
	"what requests under way still use is not. All tokens are revoked. " +
	"Name, e-mail address, password, API keys, sessions and the contents of mails are removed here, for ever. " +
	"What stays, under an id and without a name: usage, what was billed, and the audit log, with the network addresses that actions came from. " +
	"Stripe's notices, which may hold name and e-mail address, stay for 90 days after they came. " +
	"At Stripe the customer stays, with its name, e-mail address, invoices and payments."

// customerRoutes is the table of the public handler.
func (a *API) customerRoutes() []route {
	rows := a.sessionRoutes(a.customers, a.serveSignIn, SignIn{}, nil, anyCustomer())
	rows = append(rows, []route{
		{method: http.MethodPost, path: "/v1/signup", who: anyone(), serve: a.serveSignUp,
			op: operation{id: "signUp", tag: "session", summary: "Make an account, and sign in", body: SignUp{}, status: http.StatusCreated, answer: control.Account{},
				about: "The account is pending, and gets nothing, until a tier is paid. A link to confirm the address is mailed."}},
		{method: http.MethodGet, path: "/v1/me", who: anyCustomer(), serve: a.serveMe,
			op: operation{id: "getMe", tag: "me", summary: "Your account", status: http.StatusOK, answer: Profile{}}},
		{method: http.MethodPatch, path: "/v1/me", who: customerSession(), serve: a.serveChangeMe,
			op: operation{id: "changeMe", tag: "me", summary: "Change your name or language", body: ProfileChange{}, status: http.StatusOK, answer: Profile{}}},
		{method: http.MethodDelete, path: "/v1/me", who: customerSession(), serve: a.serveDeleteMe, publishes: true,
			op: operation{id: "deleteMe", tag: "me", summary: "Delete your account", status: http.StatusNoContent,
				about: "The sign-in may be 15 minutes old. " + deletionAbout}},
		{method: http.MethodPost, path: "/v1/me/password", who: customerSession(), serve: a.serveChangePassword,
			op: operation{id: "changePassword", tag: "me", summary: "Change your password", body: PasswordChange{}, status: http.StatusNoContent,
				about: "Ends all other sessions."}},
		{method: http.MethodGet, path: "/v1/me/usage", who: anyCustomer(), serve: a.serveMyUsage,
			op: operation{id: "getMyUsage", tag: "me", summary: "What you used, by day and model", query: times("Used"), status: http.StatusOK, answer: Usage{},
				about: "The present period unless said otherwise; at most 366 days."}},
		{method: http.MethodGet, path: "/v1/me/export", who: customerSession(), stream: a.streamExport,
			op: operation{id: "exportMe", tag: "me", summary: "All that is known of you", status: http.StatusOK, answer: Export{},
				about: "Without secrets, and with all usage events. Three at once, and one per minute."}},
		{method: http.MethodGet, path: "/v1/me/events", who: anyCustomer(), stream: a.streamEvents,
			op: operation{id: "streamEvents", tag: "me", summary: "What changes, as it does", status: http.StatusOK, media: "text/event-stream",
				about: "Server-sent events: account (a Profile), usage (a PeriodUsage) and boxes (a list of BoxDetail, with their steps), each at the beginning and whenever it has changed. It ends after an hour at most: connect again."}},
	}...)
	rows = append(rows, a.customerBoxRoutes()...)
	rows = append(rows, a.addressRoutes()...)
	rows = append(rows, a.keyRoutes()...)
	return append(rows, a.moneyRoutes()...)
}
