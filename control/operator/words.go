package operator

import (
	"errors"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// said is what is told of a box. text is for its customer and names nothing of the cluster: no image,
// node, address or object. detail is for operators; "" if there is no more to say than text does.
type said struct{ text, detail string }

// say returns what is told of an error: of what a box waits for that, of trouble what kind it is, and
// of anything else only that it is tried again.
func say(err error) said {
	var wait errWait
	var t trouble
	switch {
	case err == nil:
		return said{}
	case errors.As(err, &t):
		return t.said()
	case errors.As(err, &wait) && err.Error() == wait.Error():
		return said{wait.what, wait.detail}
	}
	return said{forCustomers(troubleCluster), err.Error()}
}

// Error is the text for operators.
func (t trouble) Error() string { return t.text }

// said is what is told of a trouble; nothing while nothing is wrong.
func (t trouble) said() said {
	if t.text == "" {
		return said{}
	}
	return said{forCustomers(t.kind), t.text}
}

// forCustomers is what a customer reads of a kind of trouble: whether there is something to do about it.
func forCustomers(kind string) string { return control.BoxTrouble(kind).Text() }
