package mail

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

//go:embed templates
var templateFiles embed.FS

const subjectMark = "Subject: "

// Text is a mail as it is sent.
type Text struct{ Subject, Body string }

// templates holds a template for each language and kind.
type templates map[string]*template.Template

func parseTemplates() (templates, error) {
	out := make(templates)
	var errs []error
	for _, language := range []control.Language{control.English, control.Portuguese} {
		for _, kind := range control.MailKinds() {
			name := path.Join(string(language), kind)
			text, err := fs.ReadFile(templateFiles, "templates/"+name+".txt")
			if err == nil && !strings.HasPrefix(string(text), subjectMark) {
				err = errors.New("it must begin with its subject")
			}
			if err == nil {
				// What a template asks for and the mail does not have is a mistake here, and
				// no reason to write "no value" to a customer.
				out[name], err = template.New(name).Option("missingkey=error").Funcs(functions(language)).Parse(string(text))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("mail template %s: %w", name, err))
			}
		}
	}
	return out, errors.Join(errs...)
}

func functions(language control.Language) template.FuncMap {
	return template.FuncMap{
		// date writes a day, which comes as 2006-01-02, as people do in that language.
		"date": func(day string) (string, error) {
			t, err := time.Parse(time.DateOnly, day)
			if err != nil {
				return "", err
			}
			if language == control.Portuguese {
				day := fmt.Sprint(t.Day())
				if t.Day() == 1 {
					day += "º"
				}
				return fmt.Sprintf("%s de %s de %d", day, monthInPortuguese(t.Month()), t.Year()), nil
			}
			return t.Format("January 2, 2006"), nil
		},
		// thousands writes a number of tokens as people do in that language.
		"thousands": func(v any) string {
			digits := strings.TrimSuffix(fmt.Sprintf("%.0f", v), ".")
			if n, ok := v.(int64); ok {
				digits = fmt.Sprint(n)
			}
			separator := ","
			if language == control.Portuguese {
				separator = "."
			}
			for i := len(digits) - 3; i > 0; i -= 3 {
				digits = digits[:i] + separator + digits[i:]
			}
			return digits
		},
	}
}

// monthInPortuguese names a month in Portuguese.
func monthInPortuguese(m time.Month) string {
	return [...]string{
		"janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro", "novembro", "dezembro",
	}[m-1]
}

// render writes a mail in its language.
func (t templates) render(m control.Mail, dashboard string) (Text, error) {
	parsed := t[path.Join(string(m.Language), m.Kind)]
	if parsed == nil {
		return Text{}, fmt.Errorf("no template for mail %s in %s", m.Kind, m.Language)
	}
	values := map[string]any{"dashboard": dashboard, "pay_url": dashboard}
	for k, v := range m.Params {
		if k == "name" && m.Unconfirmed {
			v = "" // anyone may have signed up by that address, and have us mail it a text
		}
		values[k] = v
	}
	var b bytes.Buffer
	if err := parsed.Execute(&b, values); err != nil {
		return Text{}, fmt.Errorf("write mail %s: %w", m.Kind, err)
	}
	subject, body, _ := strings.Cut(strings.TrimPrefix(b.String(), subjectMark), "\n")
	return Text{Subject: strings.TrimSpace(subject), Body: strings.TrimLeft(body, "\n")}, nil
}
