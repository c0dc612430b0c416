package operator

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Event is something that Kubernetes tells of a box.
type Event struct {
	Time    time.Time `json:"time"` // when it was last seen
	Type    string    `json:"type"` // Normal or Warning
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Object  string    `json:"object"` // kind/name
	Count   int32     `json:"count"`
}

// MaxTail is how many lines of a log can be asked for.
const MaxTail = 10_000

// Handler serves whoever bears the key, such as the api:
//
//	GET /boxes/{id}/logs?tail=100&follow=true   the gateway's log, as text
//	GET /boxes/{id}/events                      what Kubernetes tells of it, as JSON, newest first
//
// They are read from the cluster, by any process, whether it leads or not. Without a key
// nothing is served. Each error is a sentence.
func Handler(books Books, cluster *Cluster, key secret.Text, log *slog.Logger) http.Handler {
	h := &reader{books: books, cluster: cluster, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boxes/{id}/logs", h.logs)
	mux.HandleFunc("GET /boxes/{id}/events", h.events)
	// Digests are of one length, so how long it takes says nothing about the key.
	want := sha256.Sum256([]byte("Bearer " + key.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key == "" {
			http.Error(w, "the operator has no OPERATOR_KEY, so it shows nothing of boxes", http.StatusServiceUnavailable)
			return
		}
		given := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this needs the operator's key as a bearer token", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type reader struct {
	books   Books
	cluster *Cluster
	log     *slog.Logger
}

// box finds the box that is asked for, or answers that there is none.
func (h *reader) box(w http.ResponseWriter, r *http.Request) (control.DesiredBox, bool) {
	d, err := h.books.Desired(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, control.ErrNotFound):
		http.Error(w, "there is no such box", http.StatusNotFound)
	case err != nil:
		h.fail(w, r, err)
	}
	return d, err == nil
}

func (h *reader) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there
	}
	h.log.Warn("cannot show what a box does", "path", r.URL.Path, "error", err)
	http.Error(w, "it cannot be read now; the operator's log says why", http.StatusServiceUnavailable)
}

func (h *reader) logs(w http.ResponseWriter, r *http.Request) {
	tail, follow := int64(100), false
	if text := r.FormValue("tail"); text != "" {
		var err error
		if tail, err = strconv.ParseInt(text, 10, 64); err != nil || tail < 0 || tail > MaxTail {
			http.Error(w, fmt.Sprintf("tail is a number of lines, at most %d", MaxTail), http.StatusBadRequest)
			return
		}
	}
	if text := r.FormValue("follow"); text != "" {
		var err error
		if follow, err = strconv.ParseBool(text); err != nil {
			http.Error(w, "follow is true or false", http.StatusBadRequest)
			return
		}
	}
	d, ok := h.box(w, r)
	if !ok {
		return
	}
	pods := h.cluster.client.CoreV1().Pods(d.Namespace)
	list, err := pods.List(r.Context(), metav1.ListOptions{LabelSelector: LabelBox + "=" + d.ID})
	if err != nil && !apierrors.IsForbidden(err) { // which it is where the box has no namespace
		h.fail(w, r, err)
		return
	}
	if list == nil || len(list.Items) == 0 {
		http.Error(w, "the box has no pod now", http.StatusNotFound)
		return
	}
	newest := slices.MaxFunc(list.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	stream, err := pods.GetLogs(newest.Name, &corev1.PodLogOptions{Container: container, TailLines: &tail, Follow: follow}).Stream(r.Context())
	switch {
	case apierrors.IsBadRequest(err) || apierrors.IsNotFound(err):
		http.Error(w, "the box has no log yet", http.StatusNotFound)
		return
	case err != nil:
		h.fail(w, r, err)
		return
	}
	defer stream.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.copy(w, r, stream)
}

// copy passes on a log as it grows, to whoever takes it in time.
func (h *reader) copy(w http.ResponseWriter, r *http.Request, stream io.Reader) {
	out := http.NewResponseController(w)
	buffer := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buffer)
		if n > 0 {
			// The listener's own limit is for short answers.
			_ = out.SetWriteDeadline(time.Now().Add(30 * time.Second)) // it cannot do it, or does
			if _, werr := w.Write(buffer[:n]); werr != nil {
				return
			}
			if out.Flush() != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && r.Context().Err() == nil {
				h.log.Warn("a log broke off", "path", r.URL.Path, "error", err)
			}
			return
		}
	}
}

func (h *reader) events(w http.ResponseWriter, r *http.Request) {
	d, ok := h.box(w, r)
	if !ok {
		return
	}
	list, err := h.cluster.client.CoreV1().Events(d.Namespace).List(r.Context(), metav1.ListOptions{Limit: 500})
	if err != nil && !apierrors.IsForbidden(err) {
		h.fail(w, r, err)
		return
	}
	out := []Event{}
	if err == nil {
		for i := range list.Items {
			out = append(out, eventOf(&list.Items[i]))
		}
	}
	slices.SortStableFunc(out, func(a, b Event) int { return b.Time.Compare(a.Time) })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // who is gone gets nothing
}

func eventOf(e *corev1.Event) Event {
	at, count := e.LastTimestamp.Time, max(e.Count, 1)
	if e.Series != nil {
		at, count = e.Series.LastObservedTime.Time, max(e.Series.Count, 1)
	}
	for _, t := range []time.Time{e.EventTime.Time, e.CreationTimestamp.Time} {
		if at.IsZero() {
			at = t
		}
	}
	return Event{
		Time: at.UTC(), Type: e.Type, Reason: e.Reason, Message: e.Message, Count: count,
		Object: strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name,
	}
}
