package manifests

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/operator"
)

var update = flag.Bool("update", false, "write k8s/services/operator-access.json anew")

// The rights of the operator and the policy that limits them are written by the operator's own code.
// k8s/ has them as JSON, and must have what the code says today.
func TestOperatorAccessIsCurrent(t *testing.T) {
	r := usual(t)
	settings := r.workload(t, "platform", "operator").pod.Containers[0].env()
	text, err := operator.AccessFor(operator.ObjectOptions{Image: settings["GATEWAY_IMAGE"], ProxyNamespace: settings["TOKEN_PROXY_NAMESPACE"], DNSNamespace: settings["DNS_NAMESPACE"]})
	if err != nil {
		t.Fatal(err)
	}
	var want []map[string]any
	for _, o := range parse(t, "control operator access", []byte(text)) {
		want = append(want, o.all)
	}
	const path = "k8s/services/operator-access.json"
	if *update {
		content, err := json.MarshalIndent(want, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root(t), path), append(content, '\n'), 0o644); err != nil { // #nosec G306 -- as all sources have it
			t.Fatal(err)
		}
	}
	var kept []map[string]any
	if err := json.Unmarshal(read(t, path), &kept); err != nil {
		t.Fatal(err)
	}
	if canonical(t, kept) != canonical(t, want) {
		t.Errorf("%s is not what \"control operator access\" prints: run go test ./test/manifests -run %s -update, then scripts/manifests write", path, t.Name())
	}

	// In the manifests they are in another order, and nothing else.
	var got, all []string
	for _, o := range r.objects {
		if o.Metadata.Labels["app.kubernetes.io/name"] == "operator" && o.file == "20-access.yaml" {
			got = append(got, canonical(t, o.all))
		}
	}
	for _, o := range want {
		all = append(all, canonical(t, o))
	}
	slices.Sort(got)
	slices.Sort(all)
	if !slices.Equal(got, all) {
		t.Errorf("k8s/golden/20-access.yaml has not what \"control operator access\" prints: got\n%s\nwant\n%s", got, all)
	}

	// Without the policy the rights are an administrator's, so it comes before them.
	if first := r.objects[slices.IndexFunc(r.objects, func(o *object) bool { return o.file == "20-access.yaml" })]; first.Kind != "ValidatingAdmissionPolicy" {
		t.Errorf("the first in 20-access.yaml is a %s, not the policy", first.Kind)
	}
	if account := r.workload(t, "platform", "operator").pod.ServiceAccountName; account != operator.OperatorName {
		t.Errorf("the operator runs as %s, and %s has the rights", account, operator.OperatorName)
	}
}
