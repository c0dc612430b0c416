package manifests

import (
	"encoding/json"
	"testing"
)

// secretSchema is nix/platform-secrets.json: by Secret.
type secretSchema map[string]struct {
	Namespace string `json:"namespace"`
	Keys      map[string]struct {
		From    string            `json:"from"`    // given, generated, derived; or later: an installation can begin without it
		Readers map[string]string `json:"readers"` // container → variable; "" where it is a file
	} `json:"keys"`
}

func schema(t *testing.T) secretSchema {
	t.Helper()
	var s secretSchema
	if err := json.Unmarshal(read(t, "nix/platform-secrets.json"), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// What pods read of Secrets is what the schema says, from which the Secrets are made: every key is in
// it, and every key of it is read by whom it names.
func TestSecretsAreThoseOfTheSchema(t *testing.T) {
	s := schema(t)
	type reading struct{ secret, key, container string }
	read := make(map[reading]string)
	for _, r := range renderings(t) {
		if secrets := r.of("Secret"); len(secrets) > 0 {
			t.Errorf("%s: %v is in the manifests", r.name, secrets)
		}
		for _, w := range r.workloads(t) {
			check := func(c, secret, key string, optional bool) {
				row, known := s[secret].Keys[key]
				switch {
				case !known:
					t.Errorf("%v: container %s reads %s of %s, which the schema has not", w, c, key, secret)
				case s[secret].Namespace != w.Metadata.Namespace:
					t.Errorf("%v: container %s reads %s, which is in namespace %s", w, c, secret, s[secret].Namespace)
				case optional && row.From != "later":
					t.Errorf("%v: container %s does without %s, which is always there", w, c, key)
				}
			}
			for _, c := range w.pod.all() {
				for _, e := range c.Env {
					if ref := e.ValueFrom.SecretKeyRef; ref != nil {
						check(c.Name, ref.Name, ref.Key, ref.Optional)
						read[reading{ref.Name, ref.Key, c.Name}] = e.Name
					} else if e.Value == "" {
						t.Errorf("%v: container %s has %s without a value", w, c.Name, e.Name)
					}
				}
			}
			for _, v := range w.pod.Volumes {
				if v.Secret == nil {
					continue
				}
				if len(v.Secret.Items) == 0 {
					t.Errorf("%v: volume %s has all of %s in it", w, v.Name, v.Secret.SecretName)
				}
				for _, i := range v.Secret.Items {
					check(w.name, v.Secret.SecretName, i.Key, false)
					read[reading{v.Secret.SecretName, i.Key, w.name}] = ""
				}
			}
		}
	}
	for name, secret := range s {
		if secret.Namespace != "platform" && secret.Namespace != "monitoring" {
			continue // of the nodes
		}
		for key, row := range secret.Keys {
			if len(row.Readers) == 0 {
				t.Errorf("%s of %s is read by nobody", key, name)
			}
			for container, variable := range row.Readers {
				got, ok := read[reading{name, key, container}]
				if !ok {
					t.Errorf("%s does not read %s of %s, as the schema says", container, key, name)
				} else if got != "" && got != variable {
					t.Errorf("%s has %s of %s in %s, the schema says %s", container, key, name, got, variable)
				}
			}
		}
	}
}

// The seed of this project names these keys, and installations have them.
func TestKeysOfTheFirstInstallations(t *testing.T) {
	keys := schema(t)["platform-secrets"].Keys
	for _, key := range []string{"postgres_url", "redis_url", "kimi_api_key", "stripe_secret_key", "stripe_webhook_secret", "jwt_secret"} {
		if _, ok := keys[key]; !ok {
			t.Errorf("platform-secrets has no key %s any more", key)
		}
	}
}
