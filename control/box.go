package control

import (
	"fmt"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// BoxState is where a box is in its life, as the operator has found it.
type BoxState string

// The states of a box.
const (
	BoxPending      BoxState = "pending"      // nothing is done yet, or its customer has to give something first
	BoxProvisioning BoxState = "provisioning" // its objects are being made, or it comes back
	BoxActive       BoxState = "active"       // its gateway is ready
	BoxUpdating     BoxState = "updating"     // it changes, and may be away for a moment
	BoxSuspended    BoxState = "suspended"    // its gateway does not run; all else is kept
	BoxUnhealthy    BoxState = "unhealthy"    // its gateway should be ready and is not
	BoxFailed       BoxState = "failed"       // it could not be provisioned; nothing of it runs
	BoxDestroying   BoxState = "destroying"   // its tokens are revoked, its namespace goes
	BoxDestroyed    BoxState = "destroyed"    // nothing is left of it in the cluster
)

// BoxWants is what shall become of a box. Whoever decides on a box sets it; what has become
// of it is its state, which only the operator sets.
type BoxWants string

// What a box can be wanted to be. Nothing follows BoxDestroy.
const (
	BoxRun     BoxWants = "run"
	BoxSuspend BoxWants = "suspend"
	BoxDestroy BoxWants = "destroy"
)

// Box is one OpenClaw gateway of a customer, in a Kubernetes namespace of its own.
type Box struct {
	ID         string   `json:"id"`
	CustomerID string   `json:"customer_id"`
	Namespace  string   `json:"namespace"`
	State      BoxState `json:"state"`
	Wants      BoxWants `json:"wants"`
	// Generation grows whenever something is decided about the box; Observed is the one that
	// State is of.
	Generation int64 `json:"generation"`
	Observed   int64 `json:"observed_generation"`
	// Message says for people what is wrong, or what is waited for; "" if nothing is. Customers read
	// it: it names nothing of the cluster.
	Message   string    `json:"message,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// ChangedAt is when State was last another one.
	ChangedAt time.Time `json:"changed_at"`
}

// BoxSettings are what the customer can choose. The zero value is usable.
type BoxSettings struct {
	Language      Language `json:"language,omitempty"`       // of the agent; "" is the customer's
	TimeZone      string   `json:"time_zone,omitempty"`      // IANA's name; "" is UTC
	Thinking      string   `json:"thinking,omitempty"`       // low, medium or high; "" is the tier's
	SystemPrompt  string   `json:"system_prompt,omitempty"`  // only in tiers that allow it
	TelegramUsers []int64  `json:"telegram_users,omitempty"` // who may write to the agent; at most the tier's number
}

// BoxDetail is a box with what was decided about it, and what was done for that. It has no
// secrets.
type BoxDetail struct {
	Box
	Settings         BoxSettings `json:"settings"` // as they were chosen
	HasTelegramToken bool        `json:"has_telegram_token"`
	// Trouble is the kind of trouble that Message tells of; "" if it tells of none.
	Trouble BoxTrouble `json:"message_kind,omitempty"`
	// WaitsFor says for people what the customer has to give until the box can run; "" if nothing.
	WaitsFor string `json:"waits_for,omitempty"`
	// Held: an operator suspended it, and no payment wakes it.
	Held bool `json:"held"`
	// Size is the tier whose resources it has; "" is the customer's.
	Size     string    `json:"size,omitempty"`
	Rotation int64     `json:"rotation"`
	Restart  int64     `json:"restart"`
	Steps    []BoxStep `json:"steps"` // of the generation that was reported last, by when they began
}

// DesiredBox is all that the operator needs to know to make a box what it shall be.
type DesiredBox struct {
	Box
	Detail   string // what operators read instead of Message; "" if there is no more to say
	Tier     Tier
	Settings BoxSettings // complete: what was "" is filled in
	// TelegramToken is the customer's bot's; "" if it has given none, or with TelegramTokenError.
	TelegramToken secret.Text
	// TelegramTokenError is why the bot's token, which the customer has given, cannot be read here:
	// secret.ErrSealed. All else is known. A gateway that has the token keeps it, and may be stopped,
	// restarted and changed; one that has none cannot be started until the token can be read.
	TelegramTokenError error
	// WaitsFor says for people what the customer has to give until the box can run; "" if nothing.
	// Such a box is BoxPending, with this as its message, has no gateway, and is not tried again: what
	// it waits for comes with another generation.
	WaitsFor string
	// Rotation counts how often a new proxy token was asked for. A Secret with a token of an
	// earlier rotation gets another one.
	Rotation int64
	// Restart counts how often a restart was asked for; it is part of what the pod is made of.
	Restart int64
	// Tokens are the box's proxy tokens that are not revoked, oldest first.
	Tokens []ProxyToken
}

// BoxWaitsFor says for people what the customer of a box has to give until it can run; "" if nothing:
// nobody could write to an agent without a bot, or without people who may.
func BoxWaitsFor(id string, hasTelegramToken bool, telegramUsers int) string {
	var missing []string
	if !hasTelegramToken {
		missing = append(missing, fmt.Sprintf("waiting for a Telegram bot token: set it with PUT /v1/me/boxes/%s/telegram-token", id))
	}
	if telegramUsers == 0 {
		missing = append(missing, fmt.Sprintf("waiting for Telegram users who may write to it: set telegram_users with PATCH /v1/me/boxes/%s/settings", id))
	}
	return strings.Join(missing, "; ")
}

// BoxStep is one step of what the operator did to a box, for whoever waits for it.
type BoxStep struct {
	Name       string    `json:"name"` // one of the operator's, such as namespace, secret or gateway
	Generation int64     `json:"generation"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"` // zero while it goes on
	Error      string    `json:"error,omitempty"`      // why it is tried again, for customers too
	// Detail is Error for operators; "" if there is no more to say. It is not read with the box's
	// other steps: see store.BoxDetailForOperators.
	Detail string `json:"-"`
}

// BoxReport is what the operator has found or done. It changes nothing if it is about a
// generation before the one that was reported last. Message and errors of steps are shown to
// customers: no addresses, nodes or images of the cluster belong into them. Detail, those of steps, and
// Failure, which is for the audit log, are for operators.
type BoxReport struct {
	// Term says which operator reports, of those that have led: the later the greater. One of a term
	// before the last is refused. 0 is not checked.
	Term       int64
	BoxID      string
	Generation int64 // that it acted upon
	State      BoxState
	Message    string
	Detail     string    // Message for operators; "" if there is no more to say
	Steps      []BoxStep // those that are new or have changed
	// Operation and Took are not "" and 0 once an operation (provision, update, suspend, resume,
	// destroy, restart, rotate) has ended, well or with Failure: it gets a row in the audit log.
	Operation string
	Took      time.Duration
	Failure   string
}

// BoxEvent is one that Kubernetes has about what is in a box's namespace.
type BoxEvent struct {
	Time    time.Time `json:"time"` // when it happened last
	Type    string    `json:"type"` // Normal or Warning
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Object  string    `json:"object"` // what it is about, such as Pod/openclaw-gateway-0
	Count   int       `json:"count"`  // how often it happened
}
