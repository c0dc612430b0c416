package operator

import (
	"net/http"
	"testing"
)

func TestVerb(t *testing.T) {
	for _, c := range []struct{ method, url, want string }{
		{http.MethodGet, "/api/v1/namespaces/customer-a", "get"},
		{http.MethodGet, "/api/v1/namespaces", "list"},
		{http.MethodGet, "/api/v1/namespaces?watch=true", "watch"},
		{http.MethodGet, "/api/v1/namespaces/customer-a/secrets", "list"},
		{http.MethodGet, "/api/v1/namespaces/customer-a/secrets/box", "get"},
		{http.MethodGet, "/apis/apps/v1/deployments?limit=500", "list"},
		{http.MethodGet, "/apis/apps/v1/namespaces/customer-a/deployments", "list"},
		{http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/platform/leases/openclaw-operator", "get"},
		{http.MethodGet, "/api/v1/namespaces/customer-a/pods/gateway-0/log?follow=true", "get"},
		{http.MethodGet, "/api/v1/nodes?resourceVersion=0", "list"},
		{http.MethodGet, "/api", "get"},
		{http.MethodGet, "/apis/apps/v1", "get"},
		{http.MethodGet, "/version", "get"},
		{http.MethodPatch, "/apis/apps/v1/namespaces/customer-a/deployments/gateway?force=true", "patch"},
		{http.MethodPatch, "/apis/apps/v1/namespaces/customer-a/deployments/gateway?dryRun=All", "try"},
		{http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/platform/leases/openclaw-operator", "update"},
		{http.MethodPost, "/api/v1/namespaces/platform/events", "create"},
		{http.MethodDelete, "/api/v1/namespaces/customer-a", "delete"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "https://127.0.0.1:6443"+c.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if got := verb(r); got != c.want {
			t.Errorf("%s %s is a %q, want %q", c.method, c.url, got, c.want)
		}
	}
}
