package operator

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// Cluster is a connection to a Kubernetes API server. It is safe for concurrent use.
type Cluster struct {
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	requests *prometheus.CounterVec
}

// ClusterOptions say how to reach an API server.
type ClusterOptions struct {
	// Kubeconfig is a file; "" is the service account of the pod that the process runs in.
	Kubeconfig string
	// RequestsPerSecond and Burst bound what the process asks for; 100 and 200 by default.
	RequestsPerSecond float64
	Burst             int
}

// Connect prepares a connection; it asks for nothing yet.
func Connect(opts ClusterOptions) (*Cluster, error) {
	var config *rest.Config
	var err error
	if opts.Kubeconfig == "" {
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("connect to Kubernetes: %w; outside of a cluster give a kubeconfig", err)
		}
	} else if config, err = clientcmd.BuildConfigFromFlags("", opts.Kubeconfig); err != nil {
		return nil, fmt.Errorf("connect to Kubernetes: kubeconfig: %w", err)
	}
	if opts.RequestsPerSecond <= 0 {
		opts.RequestsPerSecond = 100
	}
	if opts.Burst <= 0 {
		opts.Burst = 200
	}
	c := &Cluster{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "operator_api_requests_total", Help: "Requests to the API server of Kubernetes, by verb and status; 0 is none.",
	}, []string{"verb", "status"})}
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(float32(opts.RequestsPerSecond), opts.Burst)
	config.UserAgent = "openclaw-operator"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next, c.requests} })
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connect to Kubernetes: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connect to Kubernetes: %w", err)
	}
	return c, nil
}

// counting counts requests.
type counting struct {
	next     http.RoundTripper
	requests *prometheus.CounterVec
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	c.requests.WithLabelValues(verb(r), strconv.Itoa(status)).Inc()
	return resp, err
}

// verb names a request as rights do, roughly; one that only tries whether it would be allowed is a "try".
func verb(r *http.Request) string {
	query := r.URL.Query()
	if query.Get("dryRun") != "" {
		return "try"
	}
	switch r.Method {
	case http.MethodGet:
		if query.Get("watch") != "" {
			return "watch"
		}
		if collection(r.URL.Path) {
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}

// collection reports whether a path of the API names all objects of a kind, and not one of them.
// Paths are /api/v1/… or /apis/GROUP/VERSION/…, and then RESOURCE[/NAME] or
// namespaces/NAMESPACE/RESOURCE[/NAME].
func collection(path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch parts[0] {
	case "api":
		parts = parts[min(len(parts), 2):]
	case "apis":
		parts = parts[min(len(parts), 3):]
	default:
		return false
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	return len(parts) == 1
}

// LogTo sends what the client of Kubernetes has to say to log. It holds for the whole process,
// so it is for its start.
func LogTo(log *slog.Logger) { klog.SetSlogLogger(log.With("part", "kubernetes client")) }

// requestTimeout bounds one request that is not a watch.
const requestTimeout = 30 * time.Second
