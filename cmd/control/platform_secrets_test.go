package main

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Each variable that a Secret fills is a setting of the command that reads it, and a secret one: what the
// manifests give to nobody would be missed only where it is needed.
func TestPlatformSecretsHaveReaders(t *testing.T) {
	text, err := os.ReadFile("../../nix/platform-secrets.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]struct {
		Keys map[string]struct {
			Readers map[string]string `json:"readers"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	none := func(string) string { return "" }
	commands := map[string]*cobra.Command{}
	for _, c := range []*cobra.Command{apiCommand(none), operatorCommand(none), billingWorkerCommand(none), migrateCommand(none), onboardingAgentCommand(none)} {
		commands[c.Name()] = c
	}
	given := map[string][]string{}
	for key, k := range schema["platform-secrets"].Keys {
		for reader, variable := range k.Readers {
			command := commands[reader]
			switch {
			case reader == "token-proxy" || reader == "redis":
				continue // token-proxy's configuration names its variables
			case command == nil:
				t.Errorf("%s is read by %s, which is no command of control", key, reader)
			case !isSecretSetting(command.Flags(), variable):
				t.Errorf("%s: control %s has no secret setting %s", key, reader, variable)
			}
			given[reader] = append(given[reader], variable)
		}
	}
	for name, command := range commands {
		command.Flags().VisitAll(func(f *pflag.Flag) {
			if variable := envName(f); variable != "" && isSecretSetting(command.Flags(), variable) && !slices.Contains(given[name], variable) {
				t.Errorf("control %s reads the secret %s, which nix/platform-secrets.json gives it from no key", name, variable)
			}
		})
	}
}

// isSecretSetting says whether flags has a setting of that variable that can also come from a file:
// only secrets can.
func isSecretSetting(flags *pflag.FlagSet, variable string) bool {
	found := false
	flags.VisitAll(func(f *pflag.Flag) {
		if envName(f) == variable {
			found = flags.Lookup(f.Name+"-file") != nil
		}
	})
	return found
}
