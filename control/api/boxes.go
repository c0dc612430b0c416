package api

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// BoxSettingsChange is what a customer changes of a box. What is left out stays.
type BoxSettingsChange struct {
	Language      *control.Language `json:"language,omitempty" empty:"yes" doc:"Of the agent; empty: that of the account."`
	TimeZone      *string           `json:"time_zone,omitempty" doc:"A name of the IANA database, such as America/Sao_Paulo; empty: UTC."`
	Thinking      *string           `json:"thinking,omitempty" doc:"low, medium or high; empty: that of the plan."`
	SystemPrompt  *string           `json:"system_prompt,omitempty" doc:"At most 8,000 characters, in plans that allow it."`
	TelegramUsers *[]int64          `json:"telegram_users,omitempty" doc:"The numbers of who may write to the agent; how many, the plan says."`
}

// TelegramToken is the token of a customer's Telegram bot.
type TelegramToken struct {
	Token string `json:"token" doc:"As Telegram's @BotFather gives it; empty takes it away. It is never shown again."`
}

// BoxSize is how large a box shall be.
type BoxSize struct {
	Size   string `json:"size" doc:"The tier whose processor and memory it gets; empty: those of the customer's own."`
	Reason string `json:"reason" doc:"1 to 500 characters."`
}

// OperatorsBox is a box as operators see it: what is its customer's business is left out.
type OperatorsBox struct {
	control.BoxDetail      // without the system prompt, and for support without the Telegram users
	SystemPromptLength int `json:"system_prompt_length" doc:"Characters of the system prompt, which nobody but the customer sees."`
	TelegramUserCount  int `json:"telegram_user_count" doc:"How many may write to the agent; support does not see who."`

	Detail string          `json:"detail,omitempty" doc:"What of the cluster is behind message; customers do not see it."`
	Steps  []OperatorsStep `json:"steps"` // in place of those without details
}

// OperatorsStep is a step as operators see it.
type OperatorsStep struct {
	control.BoxStep
	Detail string `json:"detail,omitempty" doc:"What of the cluster is behind error; customers do not see it."`
}

// operatorsBox leaves out of a box what an operator is not to see.
func operatorsBox(d control.BoxDetail, detail string, role control.Role) OperatorsBox {
	out := OperatorsBox{
		BoxDetail: d, SystemPromptLength: utf8.RuneCountInString(d.Settings.SystemPrompt), TelegramUserCount: len(d.Settings.TelegramUsers),
		Detail: detail, Steps: []OperatorsStep{},
	}
	for _, s := range d.Steps {
		out.Steps = append(out.Steps, OperatorsStep{s, s.Detail})
	}
	out.Settings.SystemPrompt = ""
	if role != control.RoleOperator && role != control.RoleAdmin {
		out.Settings.TelegramUsers = nil
	}
	return out
}

// bare is for noting what operators change of boxes, which is kept under their names: what customers
// have chosen is no part of it, and so need not be found there when a customer is deleted.
func bare(result any) any { return result.(control.BoxDetail).Box }

func (a *API) customerBoxRoutes() []route {
	const later = "It is done in a moment: observed_generation reaches generation, and the steps tell how far it is."
	return []route{
		{method: http.MethodGet, path: "/v1/me/boxes", who: anyCustomer(), serve: a.serveMyBoxes,
			op: operation{id: "listMyBoxes", tag: "boxes", summary: "Your boxes, with their settings and what is done to them", status: http.StatusOK, answer: List[control.BoxDetail]{}}},
		{method: http.MethodGet, path: "/v1/me/boxes/{id}", who: anyCustomer(), serve: a.serveMyBox,
			op: operation{id: "getMyBox", tag: "boxes", summary: "One of your boxes", status: http.StatusOK, answer: control.BoxDetail{}}},
		{method: http.MethodGet, path: "/v1/me/boxes/{id}/settings", who: anyCustomer(), serve: a.serveMyBoxSettings,
			op: operation{id: "getMyBoxSettings", tag: "boxes", summary: "What you have chosen of a box", status: http.StatusOK, answer: control.BoxSettings{}}},
		{method: http.MethodPatch, path: "/v1/me/boxes/{id}/settings", who: customerSession(), serve: a.serveChangeMyBox,
			op: operation{id: "changeMyBoxSettings", tag: "boxes", summary: "Change a box", body: BoxSettingsChange{}, status: http.StatusOK, answer: control.BoxDetail{}, about: later}},
		{method: http.MethodPut, path: "/v1/me/boxes/{id}/telegram-token", who: customerSession(), serve: a.serveMyTelegramToken,
			op: operation{id: "setMyTelegramToken", tag: "boxes", summary: "Give a box your Telegram bot", body: TelegramToken{}, status: http.StatusOK, answer: control.BoxDetail{}, about: later}},
		{method: http.MethodPost, path: "/v1/me/boxes/{id}/restart", who: customerSession(), serve: a.serveRestartMyBox,
			op: operation{id: "restartMyBox", tag: "boxes", summary: "Start a box anew", status: http.StatusOK, answer: control.BoxDetail{}, about: later}},
	}
}

func (a *API) operatorBoxRoutes() []route {
	state := parameter{"state", "In this state only.", object{"type": "string", "enum": boxStates()}}
	change := func(path, id, summary, about string, who who, do boxChange) route {
		return route{method: http.MethodPost, path: "/v1/boxes/{id}/" + path, who: who, serve: a.serveBoxChange(do),
			op: operation{id: id, tag: "boxes", summary: summary, about: about, body: Reason{}, status: http.StatusOK, answer: control.Box{}}}
	}
	destroy := change("destroy", "destroyBox", "Destroy a box for ever", "Its tokens are revoked first. The customer, its subscription and its other boxes stay.",
		adminsOnly(), (*customers.Service).DestroyBox)
	destroy.publishes = true
	return []route{
		{method: http.MethodGet, path: "/v1/boxes", who: everyOperator(), serve: a.serveBoxes,
			op: operation{id: "listBoxes", tag: "boxes", summary: "Boxes, oldest first", query: append(paging(), ofOne(), state), status: http.StatusOK, answer: List[control.Box]{}}},
		{method: http.MethodPost, path: "/v1/customers/{id}/boxes", who: operatorsAndAdmins(), serve: a.serveNewBox,
			op: operation{id: "createBox", tag: "boxes", summary: "Give a customer one more box", body: Reason{}, status: http.StatusCreated, answer: control.Box{},
				about: "Or another one for one that was destroyed. What the customer pays stays."}},
		{method: http.MethodGet, path: "/v1/boxes/{id}", who: everyOperator(), serve: a.serveBox,
			op: operation{id: "getBox", tag: "boxes", summary: "A box, with its settings and what is done to it", status: http.StatusOK, answer: OperatorsBox{}}},
		{method: http.MethodGet, path: "/v1/boxes/{id}/logs", who: operatorsAndAdmins(), stream: a.streamBoxLogs,
			op: operation{id: "getBoxLogs", tag: "boxes", summary: "What a box's gateway wrote", status: http.StatusOK, media: "text/plain",
				about: "Of the last line last. Followed, it ends after an hour at most.",
				query: []parameter{
					{"tail", "How many lines.", object{"type": "integer", "minimum": 1, "maximum": maxLogLines, "default": logLines}},
					{"follow", "Go on with what it writes from now on.", object{"type": "boolean", "default": false}},
				}}},
		{method: http.MethodGet, path: "/v1/boxes/{id}/events", who: everyOperator(), serve: a.serveBoxEvents,
			op: operation{id: "listBoxEvents", tag: "boxes", summary: "What Kubernetes tells about a box", status: http.StatusOK, answer: List[control.BoxEvent]{}}},
		change("restart", "restartBox", "Start a box anew", "", operatorsAndAdmins(), (*customers.Service).RestartBox),
		change("suspend", "suspendBox", "Stop a box, and keep all that it has", "No payment wakes it.", operatorsAndAdmins(), (*customers.Service).SuspendBox),
		change("resume", "resumeBox", "Have a suspended box run again", "If its customer is served and has paid, or as soon as it is.", operatorsAndAdmins(), (*customers.Service).ResumeBox),
		change("rotate-token", "rotateBoxToken", "Give a box a new proxy token", "The old one ends a while after the new one is in use.", operatorsAndAdmins(), (*customers.Service).RotateBoxToken),
		{method: http.MethodPost, path: "/v1/boxes/{id}/resize", who: operatorsAndAdmins(), serve: a.serveResizeBox,
			op: operation{id: "resizeBox", tag: "boxes", summary: "Give a box the resources of another tier", body: BoxSize{}, status: http.StatusOK, answer: control.Box{},
				about: "The customer's tier, by which it pays, stays. When it gets another one, its boxes get the resources of that."}},
		destroy,
	}
}

func boxStates() []string {
	return texts(control.BoxPending, control.BoxProvisioning, control.BoxActive, control.BoxUpdating, control.BoxSuspended,
		control.BoxUnhealthy, control.BoxFailed, control.BoxDestroying, control.BoxDestroyed)
}

func (a *API) serveMyBoxes(c *call) (any, error) {
	var boxes []control.BoxDetail
	err := c.mine(func(tx *store.Tx) (err error) { boxes, err = tx.BoxDetails(c.ctx(), c.customerID()); return err })
	return List[control.BoxDetail]{Items: some(boxes)}, err
}

// myBox reads the box of the path, if it is the caller's.
func (c *call) myBox() (d control.BoxDetail, err error) {
	id, err := c.pathID("id")
	if err != nil {
		return d, err
	}
	err = c.mine(func(tx *store.Tx) (err error) { d, err = tx.BoxDetail(c.ctx(), id); return err })
	return d, err
}

func (a *API) serveMyBox(c *call) (any, error) { return answered(c.myBox()) }

func (a *API) serveMyBoxSettings(c *call) (any, error) {
	d, err := c.myBox()
	return d.Settings, err
}

// changeMine changes the box of the path, if it is the caller's.
func (c *call) changeMine(do func(*customers.Service, customers.BoxRef) (control.BoxDetail, error)) (any, error) {
	d, err := c.myBox()
	if err != nil {
		return nil, err
	}
	if d.Wants == control.BoxDestroy {
		return nil, fail(kindConflict(), "The box is to be destroyed.")
	}
	d, err = do(c.noting(same), customers.BoxRef{ID: d.ID, CustomerID: c.customerID()})
	if wrong := (*customers.SettingsError)(nil); errors.As(err, &wrong) {
		return nil, invalid(wrong.Field, wrong.Reason)
	}
	if errors.Is(err, control.ErrInvalid) {
		// It may have been decided meanwhile.
		if now, readErr := c.myBox(); readErr == nil && now.Wants == control.BoxDestroy {
			return nil, fail(kindConflict(), "The box is to be destroyed.")
		}
	}
	return d, err
}

func (a *API) serveChangeMyBox(c *call) (any, error) {
	var in BoxSettingsChange
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return c.changeMine(func(s *customers.Service, ref customers.BoxRef) (control.BoxDetail, error) {
		return s.UpdateBoxSettings(c.ctx(), c.actor(), ref, customers.BoxSettingsChange(in))
	})
}

func (a *API) serveMyTelegramToken(c *call) (any, error) {
	var in TelegramToken
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if a.o.Customers.Seals == nil {
		return nil, fail(kindUnavailable(), "Telegram tokens cannot be kept here yet.")
	}
	return c.changeMine(func(s *customers.Service, ref customers.BoxRef) (control.BoxDetail, error) {
		return s.SetTelegramToken(c.ctx(), c.actor(), ref, secret.Text(in.Token))
	})
}

func (a *API) serveRestartMyBox(c *call) (any, error) {
	return c.changeMine(func(s *customers.Service, ref customers.BoxRef) (control.BoxDetail, error) {
		d, err := s.RestartBox(c.ctx(), c.actor(), ref, "")
		if errors.Is(err, control.ErrInvalid) {
			err = &failure{kind: kindConflict(), detail: "The box is suspended, and has nothing to restart.", cause: err}
		}
		return d, err
	})
}

func (a *API) serveBoxes(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	customer, err := c.ofCustomer()
	if err != nil {
		return nil, err
	}
	state, err := c.choice("state", boxStates())
	if err != nil {
		return nil, err
	}
	list, err := a.o.Store.BoxesPage(c.ctx(), customer, control.BoxState(state), p.after, p.limit+1)
	return listed(list, p, func(v control.Box) string { return cursorOf(v.CreatedAt, v.ID) }), err
}

func (a *API) serveBox(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var d control.BoxDetail
	var detail string
	err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) (err error) { d, detail, err = tx.BoxDetailForOperators(c.ctx(), id); return err })
	return operatorsBox(d, detail, c.who.role), err
}

func (a *API) serveNewBox(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	reason, err := c.reason()
	if err != nil {
		return nil, err
	}
	d, err := c.noting(bare).AddBox(c.ctx(), c.actor(), id, reason)
	return d.Box, err
}

// boxChange is a method of customers.Service that decides on a box.
type boxChange func(s *customers.Service, ctx context.Context, actor string, ref customers.BoxRef, reason string) (control.BoxDetail, error)

func (a *API) serveBoxChange(change boxChange) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id, err := c.pathID("id")
		if err != nil {
			return nil, err
		}
		reason, err := c.reason()
		if err != nil {
			return nil, err
		}
		d, err := change(c.noting(bare), c.ctx(), c.actor(), customers.BoxRef{ID: id}, reason)
		return d.Box, c.saved(err)
	}
}

func (a *API) serveResizeBox(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var in BoxSize
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Reason, err = text("reason", in.Reason, 500); err != nil {
		return nil, err
	}
	if _, err := a.o.Customers.Tiers.Get(in.Size); in.Size != "" && err != nil {
		return nil, invalid("size", "there is no such tier")
	}
	d, err := c.noting(bare).ResizeBox(c.ctx(), c.actor(), customers.BoxRef{ID: id}, in.Size, in.Reason)
	return d.Box, err
}
