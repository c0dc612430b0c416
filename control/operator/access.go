package operator

import (
	"embed"
	"strings"
)

//go:embed access/*.yaml
var access embed.FS

// Access returns the manifests of what the operator may do: its ServiceAccount, its roles, and
// the admission policy that limits them to namespaces of boxes. They are for kubectl apply by
// an administrator, once, and need the namespace platform; the operator has no right to
// change any of them.
func Access() string {
	var all []string
	files, _ := access.ReadDir("access") // it is in the program
	for _, file := range files {
		text, _ := access.ReadFile("access/" + file.Name())
		all = append(all, string(text))
	}
	return strings.Join(all, "---\n")
}
