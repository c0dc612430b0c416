package manifests

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// granted applies the namespaces and rights of the manifests, nothing else, and returns kubectl's arguments
// by which it is a ServiceAccount.
func granted(t *testing.T, k *testenv.KubernetesServer, namespace, account string) []string {
	t.Helper()
	dir := usual(t).dir(t)
	for _, file := range []string{"00-namespaces.yaml", "20-access.yaml"} {
		k.Kubectl("apply", "-f", filepath.Join(dir, file))
	}
	return []string{"--kubeconfig", k.ServiceAccountKubeconfig(namespace, account)}
}

// soon repeats do until it returns nil: rights and policies are in force a moment after they were made.
func soon(t *testing.T, what string, do func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// may asks the API server whether an account may do something: verb, resource, and in which namespace.
func may(k *testenv.KubernetesServer, as []string, question ...string) error {
	_, err := k.TryKubectl(slices.Concat(as, []string{"auth", "can-i"}, question)...)
	return err
}

// The operator's account, with the rights and the policy of the manifests and nothing else, makes all objects of
// a box, whose gateway comes up; what is no box's it cannot write. Of rights in detail control/operator has tests.
func TestOperatorMakesABox(t *testing.T) {
	k := testenv.Kubernetes(t)
	as := granted(t, k, "platform", "operator")
	settings := usual(t).workload(t, "platform", "operator").pod.Containers[0].env()

	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	token, err := contract.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	row := table.All()[0]
	id := strings.ToLower(rand.Text())
	box := control.DesiredBox{
		Box:  control.Box{ID: "b" + id, CustomerID: "c" + id, Namespace: operator.NamespaceStart + id, Wants: control.BoxRun, Generation: 1},
		Tier: row, Settings: control.BoxSettings{Language: control.English, TimeZone: "UTC", Thinking: row.Thinking}, TelegramToken: "1:fake",
	}
	objects, err := operator.Objects(operator.ObjectOptions{
		Image: settings["GATEWAY_IMAGE"], ProxyURL: settings["TOKEN_PROXY_URL"], ProxyNamespace: settings["TOKEN_PROXY_NAMESPACE"],
		DNSNamespace: settings["DNS_NAMESPACE"], Model: settings["MODEL"],
		Render: func(operator.ObjectOptions, control.DesiredBox) ([]byte, error) { return []byte("{}"), nil },
	}, box, operator.Secrets{ProxyToken: token, GatewayToken: "fake"})
	if err != nil || len(objects) < 8 {
		t.Fatalf("%d objects: %v", len(objects), err)
	}

	soon(t, "the policy refuses the operator a namespace that is no box's", func() error {
		_, err := k.TryKubectl(append([]string{"create", "namespace", "openclaw-canary", "--dry-run=server"}, as...)...)
		if err == nil {
			return errors.New("it was let")
		}
		if strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'openclaw-operator'") {
			return nil
		}
		return err
	})
	for _, o := range objects {
		text, err := json.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		soon(t, "the operator applies "+o.GetKind()+" "+o.GetName(), func() error {
			return k.Apply(string(text), append([]string{"--field-manager=" + operator.FieldManager, "--validate=strict"}, as...)...)
		})
	}
	k.Kubectl("-n", box.Namespace, "wait", "--for=condition=Available", "deployment/"+operator.GatewayName, "--timeout=60s")

	for _, question := range [][]string{
		{"get", "secrets", "-n", "platform"}, {"create", "pods", "-n", "platform"}, {"delete", "deployments", "-n", "platform"},
		{"create", "clusterroles"}, {"update", "validatingadmissionpolicies"}, {"get", "secrets", "-n", box.Namespace}, {"create", "pods/exec", "-n", box.Namespace},
	} {
		if err := may(k, as, question...); err == nil {
			t.Errorf("the operator may %v", question)
		}
	}
	k.Kubectl(append([]string{"delete", "namespace", box.Namespace, "--wait=false"}, as...)...)
}

// Prometheus finds the pods of the two namespaces, and sees nothing else.
func TestPrometheusSeesPods(t *testing.T) {
	k := testenv.Kubernetes(t)
	as := granted(t, k, "monitoring", "prometheus")
	for _, space := range []string{"platform", "monitoring"} {
		soon(t, "Prometheus watches pods of "+space, func() error { return may(k, as, "watch", "pods", "-n", space) })
	}
	for _, question := range [][]string{{"list", "pods", "-n", "default"}, {"list", "pods", "-A"}, {"get", "secrets", "-n", "platform"}, {"get", "configmaps", "-n", "platform"}} {
		if err := may(k, as, question...); err == nil {
			t.Errorf("Prometheus may %v", question)
		}
	}
}
