package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// explain turns an error of decoding text into c into one that says where the fault is
// and what to write instead.
func explain(err error, text []byte, c *Config) error {
	line := func(offset int) int { return 1 + bytes.Count(text[:min(max(offset, 0), len(text))], []byte{'\n'}) }
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: a bracket or a quotation mark is not closed", err)
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %w (JSON has no comments, and no comma behind the last field)", line(int(syntax.Offset)-1), err)
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %s is a JSON %s: want %s", line(int(kind.Offset)-1), kind.Field, kind.Value, wanted(kind.Type))
	}
	if _, name, ok := strings.Cut(err.Error(), "json: unknown field "); ok {
		bare := strings.Trim(name, `"`)
		hint := ""
		if like := nearest(bare, fieldNames(reflect.TypeOf(*c), nil)); like != "" {
			hint = fmt.Sprintf(": did you mean %q?", like)
		}
		return fmt.Errorf("line %d: unknown field %s%s", line(bytes.Index(text, []byte(name))), name, hint)
	}
	// Durations come as text and say themselves what is wrong, but not where.
	if rest, ok := strings.CutPrefix(err.Error(), "duration "); ok {
		value, _, _ := strings.Cut(rest, ": ")
		if at := regexp.MustCompile(`"(\w+)"\s*:\s*` + regexp.QuoteMeta(value)).FindSubmatchIndex(text); at != nil {
			return fmt.Errorf("line %d: %s: %w", line(at[0]), text[at[2]:at[3]], err)
		}
	}
	return err
}

// wanted describes a value of type t as it stands in JSON.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration such as "10s"`
	case t.Kind() == reflect.String:
		return "a text in quotation marks"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list in [brackets]"
	case t.Kind() == reflect.Map:
		return `an object such as {"name": "value"}`
	case t.Kind() == reflect.Struct:
		return `an object with the fields ` + strings.Join(ownFields(t), ", ")
	}
	return "a whole number, without a unit"
}

func ownFields(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("json"))
	}
	return names
}

// fieldNames appends the names of all fields below t.
func fieldNames(t reflect.Type, names []string) []string {
	switch t.Kind() {
	case reflect.Slice:
		return fieldNames(t.Elem(), names)
	case reflect.Struct:
		for i := range t.NumField() {
			names = fieldNames(t.Field(i).Type, append(names, t.Field(i).Tag.Get("json")))
		}
	}
	return names
}

// nearest returns the name that s was probably meant to be, "" if none is like it.
func nearest(s string, names []string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	best, least := "", 3 // at most two slips
	for _, n := range names {
		if n == "" {
			continue
		}
		if d := slips(plain(s), plain(n)); d < least && d < len(n)/2 {
			best, least = n, d
		}
	}
	return best
}

// slips is the number of letters to insert, remove or replace to make a into b.
func slips(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			differs := 1
			if a[i] == b[j] {
				differs = 0
			}
			row[j+1] = min(last[j]+differs, last[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
