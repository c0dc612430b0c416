package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// table is what a command shows: columns for people, data for programs.
type table struct {
	head []string
	rows [][]string
}

// outputs are what --output may be.
func outputs() []string { return []string{"table", "json", "yaml"} }

// show prints data as JSON or YAML, or the tables, one below the other.
func (a *app) show(cmd *cobra.Command, data any, tables ...table) error {
	out := cmd.OutOrStdout()
	switch a.output {
	case "json":
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(data)
	case "yaml":
		return writeYAML(out, data)
	}
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(out)
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, strings.Join(t.head, "\t"))
		for _, row := range t.rows {
			for i := range row {
				row[i] = printable(row[i])
			}
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// writeYAML writes the same as JSON in YAML. It goes by way of JSON, which is YAML too, so
// that names and the order of fields are the same, and no number loses digits.
func writeYAML(out io.Writer, data any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	unquote(&node)
	y := yaml.NewEncoder(out)
	y.SetIndent(2)
	if err := y.Encode(&node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return y.Close()
}

// unquote takes JSON's braces and quotes off. A text keeps quotes where it would be read as
// something else: the tag says that it is one.
func unquote(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.SetString(n.Value)
	}
	for _, c := range n.Content {
		unquote(c)
	}
}

// printable keeps what others wrote, such as names and models, from moving the
// cursor or breaking the columns.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
