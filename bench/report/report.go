package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// book is the latest run of each kind, nil where there is none.
type book struct {
	compare, streams, overload, grants, replay, syscalls, control *record.Run
}

// Write reads the latest results in dir and writes the report to out, and the plots into
// dir/plots.
func Write(dir, out string) error {
	var b book
	for kind, to := range map[string]**record.Run{
		record.KindCompare: &b.compare, record.KindStreams: &b.streams, record.KindOverload: &b.overload,
		record.KindGrants: &b.grants, record.KindReplay: &b.replay,
		record.KindSyscalls: &b.syscalls, record.KindControl: &b.control,
	} {
		r, err := record.Latest(dir, kind)
		if err != nil {
			return err
		}
		*to = r
	}
	if b == (book{}) {
		return fmt.Errorf("report: there are no results in %s: run openclaw-bench compare first", dir)
	}
	text, plots := b.render(filepath.ToSlash(filepath.Join(dir, "plots")))
	if err := os.MkdirAll(filepath.Join(dir, "plots"), 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var errs []error
	for name, svg := range plots {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "plots", name), svg, 0o644))
	}
	errs = append(errs, os.WriteFile(out, text, 0o644))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Print writes the tables of a comparison, without plots and method.
func Print(w io.Writer, r *record.Run) error {
	b := book{compare: r}
	p := &page{code: r.Revision}
	b.summary(p)
	compared(p, r)
	_, err := w.Write(p.Bytes())
	return err
}

// page collects the report.
type page struct {
	bytes.Buffer
	dir   string            // of the plots, as links name it
	code  string            // the revision that was compared, "" if unknown
	plots map[string][]byte // nil: none are wanted
}

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// plot adds a drawing.
func (p *page) plot(name, alt string, svg []byte) {
	if p.plots == nil {
		return
	}
	p.plots[name] = svg
	p.printf("![%s](%s/%s)\n\n", alt, p.dir, name)
}

// table writes rows, the first being the heads; an empty table is left out.
func (p *page) table(rows [][]string) {
	if len(rows) < 2 {
		return
	}
	for i, row := range rows {
		p.printf("| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			p.printf("|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	p.printf("\n")
}

// render makes the report and its plots.
func (b *book) render(dir string) ([]byte, map[string][]byte) {
	p := &page{dir: dir, code: b.revision(), plots: make(map[string][]byte)}
	p.printf("# Benchmarks\n\n")
	p.printf("Written by `openclaw-bench report` from the files in `bench/results/`. Do not edit.\n\n")
	b.summary(p)
	if b.compare != nil {
		compared(p, b.compare)
	}
	b.scale(p)
	b.sizing(p)
	b.method(p)
	return p.Bytes(), p.plots
}

// revision is what was compared; "" if that is unknown.
func (b *book) revision() string {
	if b.compare == nil {
		return ""
	}
	return b.compare.Revision
}

// about says where and when a run was, and of what.
func about(p *page, r *record.Run) {
	where := "all programs share the processors"
	if setting(r, "apart") == "true" {
		where = "the proxies have a processor for themselves"
	}
	p.printf("<sub>%s, %s; %s; `%s`", r.At.Format("2006-01-02 15:04 UTC"), machine(&r.Machine), where, r.Command)
	if r.Revision != "" {
		p.printf(" of revision %s", r.Revision)
	}
	if differ(r.Revision, p.code) {
		p.printf(", **not that of the comparison**")
	}
	p.printf("; %.0f s</sub>\n\n", r.Seconds)
}

// differ reports whether two revisions are known and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

func machine(m *record.Machine) string {
	s := fmt.Sprintf("%d cores of %s", m.Cores, m.CPU)
	if m.Memory > 0 {
		s += fmt.Sprintf(", %d GiB", (m.Memory+1<<29)>>30)
	}
	if m.Kernel != "" {
		s += ", Linux " + m.Kernel
	}
	return s + ", " + m.Go
}
