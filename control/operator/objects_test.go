package operator

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

var update = flag.Bool("update", false, "write testdata anew")

// Secrets of tests, obviously false.
const (
	testGatewayToken  = "gateway-token-of-a-test"
	testTelegramToken = "123456:telegram-token-of-a-test"
)

func testOptions() ObjectOptions {
	return ObjectOptions{
		Image:    "registry.test/openclaw-gateway@sha256:" + strings.Repeat("0f", 32),
		ProxyURL: "http://token-proxy.platform.svc.cluster.local:8080/v1",
		Model:    "k2p5",
		Render: func(o ObjectOptions, box control.DesiredBox) ([]byte, error) {
			return fmt.Appendf(nil, `{"model":%q,"proxy":%q,"language":%q,"prompt":%q}`, o.Model, o.ProxyURL, box.Settings.Language, box.Settings.SystemPrompt), nil
		},
	}
}

func testBox(t testing.TB, tier string) control.DesiredBox {
	t.Helper()
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	row, err := table.Get(tier)
	if err != nil {
		t.Fatal(err)
	}
	return control.DesiredBox{
		Box: control.Box{
			ID: "0f5f3c5e-0000-4000-8000-0000000000b0", CustomerID: "0f5f3c5e-0000-4000-8000-0000000000c0",
			Namespace: "customer-0f5f3c5e", Wants: control.BoxRun, Generation: 3,
		},
		Tier:          row,
		Settings:      control.BoxSettings{Language: control.English, TimeZone: "America/Sao_Paulo", Thinking: row.Thinking},
		TelegramToken: testTelegramToken,
		Rotation:      2,
		Restart:       1,
	}
}

func testSecrets(t testing.TB) Secrets {
	t.Helper()
	token, err := contract.NewToken(bytes.NewReader(bytes.Repeat([]byte{7}, 256)))
	if err != nil {
		t.Fatal(err)
	}
	return Secrets{ProxyToken: token, Rotation: 2, TokenID: "tok-1", GatewayToken: testGatewayToken}
}

func build(t testing.TB, o ObjectOptions, box control.DesiredBox, s Secrets) []Object {
	t.Helper()
	objects, err := Objects(o, box, s)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// pick returns the only object of a kind as its own type.
func pick[T any](t testing.TB, objects []Object, kind string) T {
	t.Helper()
	var typed T
	i := slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == kind })
	if i < 0 {
		t.Fatalf("there is no %s", kind)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(objects[i].Object, &typed, true); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return typed
}

func TestObjectsGolden(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"starter", "team"} {
		o, box := testOptions(), testBox(t, tier)
		if tier == "team" {
			o.StorageClass = "fast"
			o.Exclude = []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("5.75.0.0/20"), netip.MustParsePrefix("2a01:4f8::/32")}
			box.Settings.SystemPrompt = "Be brief."
			box.Wants = control.BoxSuspend
		}
		var got bytes.Buffer
		for _, object := range build(t, o, box, testSecrets(t)) {
			text, err := yaml.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "---\n%s", text)
		}
		path := filepath.Join("testdata", tier+".yaml")
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the objects of a %s box are not those of %s; if they shall be, run: go test ./control/operator -run TestObjectsGolden -update, and read the difference", tier, path)
		}
	}
}

func TestSameInputSameObjects(t *testing.T) {
	t.Parallel()
	first := build(t, testOptions(), testBox(t, "pro"), testSecrets(t))
	for range 50 {
		if !reflect.DeepEqual(first, build(t, testOptions(), testBox(t, "pro"), testSecrets(t))) {
			t.Fatal("the same arguments gave other objects")
		}
	}
}

func TestOnlyTheSecretHoldsSecrets(t *testing.T) {
	t.Parallel()
	s := testSecrets(t)
	found := 0
	for _, object := range build(t, testOptions(), testBox(t, "team"), s) {
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range []string{s.ProxyToken.Reveal(), testGatewayToken, testTelegramToken} {
			for _, form := range []string{raw, base64.StdEncoding.EncodeToString([]byte(raw))} {
				if !bytes.Contains(text, []byte(form)) {
					continue
				}
				found++
				if object.GetKind() != "Secret" {
					t.Errorf("%s %s holds a secret", object.GetKind(), object.GetName())
				}
			}
		}
	}
	if found != 3 {
		t.Errorf("%d secrets found in all objects, want 3", found)
	}
}

// A pod must be made anew exactly if what it runs with has changed.
func TestPodTemplateFollowsWhatItRunsWith(t *testing.T) {
	t.Parallel()
	template := func(change func(*ObjectOptions, *control.DesiredBox, *Secrets)) corev1.PodTemplateSpec {
		o, box, s := testOptions(), testBox(t, "pro"), testSecrets(t)
		change(&o, &box, &s)
		return pick[appsv1.Deployment](t, build(t, o, box, s), "Deployment").Spec.Template
	}
	before := template(func(*ObjectOptions, *control.DesiredBox, *Secrets) {})
	for what, change := range map[string]func(*ObjectOptions, *control.DesiredBox, *Secrets){
		"image": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) {
			o.Image += ""
			o.Image = strings.Replace(o.Image, "0f", "1f", 1)
		},
		"model":          func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) { o.Model = "k3" },
		"prompt":         func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Settings.SystemPrompt = "x" },
		"restart":        func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Restart++ },
		"telegram token": func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.TelegramToken += "x" },
		"no bot":         func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.TelegramToken = "" },
		"gateway token":  func(_ *ObjectOptions, _ *control.DesiredBox, s *Secrets) { s.GatewayToken += "x" },
		"proxy token": func(_ *ObjectOptions, _ *control.DesiredBox, s *Secrets) {
			s.ProxyToken, _ = contract.NewToken(bytes.NewReader(bytes.Repeat([]byte{9}, 256)))
		},
		"tier": func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Tier.PodLimits.MemoryMiB++ },
	} {
		if reflect.DeepEqual(before, template(change)) {
			t.Errorf("another %s rolls nothing", what)
		}
	}
	for what, change := range map[string]func(*ObjectOptions, *control.DesiredBox, *Secrets){
		"generation": func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Generation++ },
		"suspension": func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Wants = control.BoxSuspend },
		"token ID":   func(_ *ObjectOptions, _ *control.DesiredBox, s *Secrets) { s.TokenID = "tok-2" },
		"range": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) {
			o.Exclude = []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")}
		},
	} {
		if !reflect.DeepEqual(before, template(change)) {
			t.Errorf("another %s makes the pod anew", what)
		}
	}
}

func TestReplicasFollowWhatIsWanted(t *testing.T) {
	t.Parallel()
	for wants, replicas := range map[control.BoxWants]int32{control.BoxRun: 1, control.BoxSuspend: 0, control.BoxDestroy: 0} {
		box := testBox(t, "starter")
		box.Wants = wants
		d := pick[appsv1.Deployment](t, build(t, testOptions(), box, testSecrets(t)), "Deployment")
		if *d.Spec.Replicas != replicas {
			t.Errorf("wants %s: %d replicas, want %d", wants, *d.Spec.Replicas, replicas)
		}
	}
}

// The quota must have room for the pod, and for one only.
func TestPodFitsItsQuotaOnce(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"starter", "pro", "team"} {
		objects := build(t, testOptions(), testBox(t, tier), testSecrets(t))
		hard := pick[corev1.ResourceQuota](t, objects, "ResourceQuota").Spec.Hard
		pod := pick[appsv1.Deployment](t, objects, "Deployment").Spec.Template.Spec
		if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
			t.Fatalf("%s: want exactly one container", tier)
		}
		need := pod.Containers[0].Resources
		for name, got := range map[corev1.ResourceName][2]int64{
			"requests.cpu":    {need.Requests.Cpu().MilliValue(), milli(hard, "requests.cpu")},
			"limits.cpu":      {need.Limits.Cpu().MilliValue(), milli(hard, "limits.cpu")},
			"requests.memory": {need.Requests.Memory().MilliValue(), milli(hard, "requests.memory")},
			"limits.memory":   {need.Limits.Memory().MilliValue(), milli(hard, "limits.memory")},
			"pods":            {1000, milli(hard, "pods")},
			// Two volumes that are directories of the node, and the log.
			"requests.ephemeral-storage": {need.Requests.StorageEphemeral().MilliValue(), milli(hard, "requests.ephemeral-storage")},
			"limits.ephemeral-storage":   {need.Limits.StorageEphemeral().MilliValue(), milli(hard, "limits.ephemeral-storage")},
		} {
			if got[0] != got[1] || got[0] == 0 {
				t.Errorf("%s: %s is %d/1000, the quota has %d/1000", tier, name, got[0], got[1])
			}
		}
	}
}

// What a node's disk is asked for holds whatever the pod's own volumes can.
func TestDiskOfAPodIsBounded(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"", "fast"} {
		o := testOptions()
		o.StorageClass = class
		objects := build(t, o, testBox(t, "pro"), testSecrets(t))
		pod := pick[appsv1.Deployment](t, objects, "Deployment").Spec.Template.Spec
		sum := int64(0)
		for _, v := range pod.Volumes {
			if v.EmptyDir != nil {
				sum += v.EmptyDir.SizeLimit.Value()
			}
		}
		disk := pod.Containers[0].Resources.Limits.StorageEphemeral().Value()
		if sum == 0 || disk <= sum || disk > sum+256<<20 {
			t.Errorf("storage class %q: %d bytes of the node's disk, and %d in directories", class, disk, sum)
		}
		for _, item := range pick[corev1.LimitRange](t, objects, "LimitRange").Spec.Limits[:2] {
			if item.Max.StorageEphemeral().Value() != disk {
				t.Errorf("storage class %q: a %s may have %v", class, item.Type, item.Max)
			}
		}
	}
}

// The gateway is started as it was measured, whatever the image would start.
func TestContainerStartsTheMeasuredProgram(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Main = "/srv/openclaw/openclaw.mjs"
	for main, options := range map[string]ObjectOptions{openclaw.Main: testOptions(), o.Main: o} {
		c := pick[appsv1.Deployment](t, build(t, options, testBox(t, "pro"), testSecrets(t)), "Deployment").Spec.Template.Spec.Containers[0]
		if !slices.Equal(c.Command, []string{"node"}) || !slices.Equal(c.Args, openclaw.Command(main)) || !slices.Contains(c.Args, "--optimize-for-size") {
			t.Errorf("main program %s: %v %v", main, c.Command, c.Args)
		}
		// It reads .env there.
		if c.WorkingDir != "/" {
			t.Errorf("it begins in %q", c.WorkingDir)
		}
	}
}

func milli(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	return q.MilliValue()
}

func TestEgressReachesOnlyWhatIsPublic(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Exclude = []netip.Prefix{netip.MustParsePrefix("5.75.128.9/17"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2a01:4f8:1::/48")}
	policy := pick[networkingv1.NetworkPolicy](t, build(t, o, testBox(t, "pro"), testSecrets(t)), "NetworkPolicy").Spec
	if len(policy.Ingress) != 0 || len(policy.PolicyTypes) != 2 || len(policy.PodSelector.MatchLabels) != 0 {
		t.Errorf("the policy does not close the namespace: %+v", policy)
	}
	reach := func(address string) bool {
		a := netip.MustParseAddr(address)
		for _, rule := range policy.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock == nil || !netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(a) {
					continue
				}
				if !slices.ContainsFunc(peer.IPBlock.Except, func(s string) bool { return netip.MustParsePrefix(s).Contains(a) }) {
					return true
				}
			}
		}
		return false
	}
	for _, address := range []string{
		"0.0.0.0", "10.0.0.10", "10.96.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1",
		"168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1",
		"198.18.0.1", "198.19.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255", "5.75.128.1", "5.75.255.255",
		"::", "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "fc00::1",
		"fd00:ec2::254", "fd20:ce::254", "fe80::1", "fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "3fff::1", "2a01:4f8:1:2::3", "4000::1",
	} {
		if reach(address) {
			t.Errorf("boxes can reach %s", address)
		}
	}
	for _, address := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "149.154.167.220", "172.15.255.255", "172.32.0.1",
		"168.63.129.15", "192.167.1.1", "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "5.76.0.1",
		"2001:4860:4860::8888", "2606:4700::1111", "2001:67c:4e8:f004::9", "2a01:4f8:2::1", "2a00::1",
	} {
		if !reach(address) {
			t.Errorf("boxes cannot reach %s", address)
		}
	}
	for _, rule := range policy.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock == nil {
				if peer.NamespaceSelector == nil || peer.PodSelector == nil || len(peer.PodSelector.MatchLabels) == 0 {
					t.Errorf("a peer without both selectors lets more through: %+v", peer)
				}
				continue
			}
			checkRanges(t, *peer.IPBlock)
		}
		if len(rule.To) == 0 || len(rule.Ports) == 0 {
			t.Errorf("a rule without peers or ports allows all: %+v", rule)
		}
	}
}

// checkRanges holds what the API server demands of a list of exceptions, and that it is sorted
// and says nothing twice.
func checkRanges(t *testing.T, block networkingv1.IPBlock) {
	t.Helper()
	all := netip.MustParsePrefix(block.CIDR)
	var last netip.Prefix
	for _, s := range block.Except {
		p := netip.MustParsePrefix(s)
		if p != p.Masked() || !all.Contains(p.Addr()) || p.Bits() <= all.Bits() {
			t.Errorf("%s cannot be excepted from %s", p, all)
		}
		if last.IsValid() && (last.Overlaps(p) || last.Addr().Compare(p.Addr()) >= 0) {
			t.Errorf("%s after %s: overlapping, or not sorted", p, last)
		}
		last = p
	}
}

func TestExcludingAllOfAFamilyLeavesNoRule(t *testing.T) {
	t.Parallel()
	blocks := publicRanges([]netip.Prefix{netip.MustParsePrefix("::/0")})
	if len(blocks) != 1 || blocks[0].CIDR != "0.0.0.0/0" {
		t.Errorf("without IPv6: %v", blocks)
	}
}

func TestObjectsRefuseWhatCannotBe(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*ObjectOptions, *control.DesiredBox, *Secrets){
		"tag": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) {
			o.Image = "registry.test/openclaw-gateway:latest"
		},
		"namespace":      func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Namespace = "kube-system" },
		"DNS label":      func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.Namespace = "customer-A" },
		"customer":       func(_ *ObjectOptions, b *control.DesiredBox, _ *Secrets) { b.CustomerID = "a b" },
		"no proxy token": func(_ *ObjectOptions, _ *control.DesiredBox, s *Secrets) { s.ProxyToken = contract.Token{} },
		"no URL":         func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) { o.ProxyURL = "" },
		"another namespace": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) {
			o.ProxyURL = "http://token-proxy.default.svc.cluster.local:8080/v1"
		},
		"no host":     func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) { o.ProxyURL = "token-proxy:8080" },
		"no main":     func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) { o.Main = "openclaw.mjs" },
		"no renderer": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) { o.Render = nil },
		"mapped range": func(o *ObjectOptions, _ *control.DesiredBox, _ *Secrets) {
			o.Exclude = []netip.Prefix{netip.MustParsePrefix("::ffff:1.2.3.0/120")}
		},
	} {
		o, box, s := testOptions(), testBox(t, "starter"), testSecrets(t)
		change(&o, &box, &s)
		if _, err := Objects(o, box, s); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", what, err)
		}
	}
}

func TestReadSecretsReadsWhatObjectsWrote(t *testing.T) {
	t.Parallel()
	s := testSecrets(t)
	objects := build(t, testOptions(), testBox(t, "starter"), s)
	i := slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == "Secret" })
	got, err := ReadSecrets(objects[i].Unstructured)
	if err != nil || got != s {
		t.Errorf("got %v, %v", got, err)
	}
	for _, key := range []string{EnvProxyToken, EnvGatewayToken} {
		for _, value := range []any{nil, "", "!", base64.StdEncoding.EncodeToString([]byte("ocp_short"))} {
			if key == EnvGatewayToken && value != nil && len(value.(string)) > 1 {
				continue
			}
			broken := objects[i].DeepCopy()
			broken.Object["data"].(map[string]any)[key] = value
			if _, err := ReadSecrets(broken); !errors.Is(err, control.ErrInvalid) || strings.Contains(err.Error(), "ocp_short") {
				t.Errorf("%s = %v: %v", key, value, err)
			}
		}
	}
	if secret.Text(testGatewayToken).Reveal() != got.GatewayToken.Reveal() {
		t.Error("the gateway token is another one")
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
