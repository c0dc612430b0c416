package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var mark = regexp.MustCompile(`faultpoint\.At\("([a-z.]+)"\)`)

// findPoints reads from the source of the module at root which commit points there are,
// sorted: in token-proxy and in the billing-worker. What stands in quota is in both.
func findPoints(root string) (proxy, worker []string, err error) {
	for _, tree := range []string{"proxy", "quota", "control", "cmd/token-proxy", "cmd/control"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range mark.FindAllStringSubmatch(string(b), -1) {
				if strings.Contains(tree, "proxy") || tree == "quota" {
					proxy = append(proxy, m[1])
				}
				if strings.Contains(tree, "control") || tree == "quota" {
					worker = append(worker, m[1])
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("find commit points: %w", err)
		}
	}
	if len(proxy) == 0 || len(worker) == 0 {
		return nil, nil, fmt.Errorf("no commit points found in the source at %s", root)
	}
	slices.Sort(proxy)
	slices.Sort(worker)
	return slices.Compact(proxy), slices.Compact(worker), nil
}

// arm tells a process which was started with this file what to die at.
func arm(file, point string, nth int) error {
	if err := os.Remove(file + ".fired"); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%s %d\n", point, nth), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file) // never half an order
}

// disarm takes back what was armed, and reports where the process died, or "".
func disarm(file string) string {
	_ = os.Remove(file) // it may never have been armed
	b, err := os.ReadFile(file + ".fired")
	if err != nil {
		return ""
	}
	_ = os.Remove(file + ".fired")
	return strings.TrimSpace(string(b))
}
