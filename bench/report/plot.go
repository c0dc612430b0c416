package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// bar is one row of a bar chart.
type bar struct {
	label     string
	value     float64
	low, high float64 // quartiles; not drawn if equal
	mark      bool    // ours
}

// style makes a drawing readable on a light and on a dark page.
const style = `<style>
text { font: 13px -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 15px; }
.small { font-size: 12px; fill: #57606a; }
.bar { fill: #8c959f; } .own { fill: #0969da; } .line { stroke: #d0d7de; stroke-width: 1; }
.range { stroke: #24292f; stroke-width: 1.5; } .curve { fill: none; stroke: #0969da; stroke-width: 2; } .other { stroke: #8c959f; }
.dot { fill: #0969da; } .otherdot { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; } .bar { fill: #6e7681; } .own { fill: #4493f8; } .line { stroke: #3d444d; }
.range { stroke: #e6edf3; } .curve { stroke: #4493f8; } .other { stroke: #6e7681; } .dot { fill: #4493f8; } .otherdot { fill: #6e7681; }
}
</style>
`

// Sizes of the drawings, in pixels.
const (
	width   = 760
	labels  = 220 // of the column with the bars' names
	figures = 100 // of the column with their values
	legend  = 200 // of the column with the curves' names
	rowH    = 28
	titleH  = 44
	plotH   = 260
	marginX = 70
)

func svg(height int, body string) []byte {
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">
%s%s</svg>
`, width, height, width, height, style, body)
}

// bars draws a bar chart from 0, with the value of reference as a line across.
func bars(title, unit string, rows []bar, reference float64) []byte {
	top := reference
	for _, r := range rows {
		top = max(top, r.value, r.high)
	}
	if top <= 0 {
		top = 1
	}
	scale := float64(width-labels-figures) / top
	var b strings.Builder
	fmt.Fprintf(&b, `<text class="title" x="10" y="24">%s</text>`+"\n", html.EscapeString(title))
	height := titleH + rowH*len(rows) + 14
	if reference > 0 {
		x := labels + reference*scale
		fmt.Fprintf(&b, `<line class="line" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, titleH-6, x, height-8)
	}
	for i, r := range rows {
		y := titleH + rowH*i
		class := "bar"
		if r.mark {
			class = "bar own"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labels-10, y+15, html.EscapeString(r.label))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, labels, y+2, max(1, r.value*scale), rowH-10)
		if r.high > r.low {
			mid := float64(y) + 2 + float64(rowH-10)/2
			fmt.Fprintf(&b, `<line class="range" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, labels+r.low*scale, mid, labels+r.high*scale, mid)
		}
		fmt.Fprintf(&b, `<text class="small" x="%.1f" y="%d">%s %s</text>`+"\n", labels+max(r.value, r.high)*scale+8, y+15, figure(r.value), html.EscapeString(unit))
	}
	return svg(height, b.String())
}

// curve is one line of a line chart.
type curve struct {
	label string
	x, y  []float64
	mark  bool
}

// lines draws curves over an axis of x that is logarithmic if logX.
func lines(title, xName string, curves []curve, logX bool) []byte {
	minX, maxX, maxY := math.Inf(1), math.Inf(-1), 0.0
	at := func(x float64) float64 {
		if logX {
			return math.Log10(max(x, 1))
		}
		return x
	}
	for _, c := range curves {
		for i := range c.x {
			minX, maxX = min(minX, at(c.x[i])), max(maxX, at(c.x[i]))
			maxY = max(maxY, c.y[i])
		}
	}
	if maxX <= minX {
		maxX = minX + 1
	}
	if maxY <= 0 {
		maxY = 1
	}
	maxY = round(maxY)
	const left, bottom = marginX, titleH + plotH
	px := func(x float64) float64 { return left + (at(x)-minX)/(maxX-minX)*float64(width-left-legend) }
	py := func(y float64) float64 { return float64(bottom) - y/maxY*plotH }
	var b strings.Builder
	fmt.Fprintf(&b, `<text class="title" x="10" y="24">%s</text>`+"\n", html.EscapeString(title))
	for i := range 5 {
		y := maxY * float64(i) / 4
		fmt.Fprintf(&b, `<line class="line" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="small" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, py(y), width-legend, py(y), left-8, py(y)+4, tick(y))
	}
	var ticks []float64
	for _, c := range curves {
		for _, x := range c.x {
			known := false
			for _, t := range ticks {
				known = known || math.Abs(px(t)-px(x)) < 40
			}
			if !known {
				ticks = append(ticks, x)
			}
		}
	}
	for _, x := range ticks {
		fmt.Fprintf(&b, `<text class="small" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", px(x), bottom+18, tick(x))
	}
	for n, c := range curves {
		class, dot := "curve other", "otherdot"
		if c.mark {
			class, dot = "curve", "dot"
		}
		var points strings.Builder
		for i := range c.x {
			fmt.Fprintf(&points, "%.1f,%.1f ", px(c.x[i]), py(c.y[i]))
		}
		// Without colours, too, one curve can be told from another.
		dash := []string{"", "6 3", "2 3", "8 3 2 3"}[n%4]
		fmt.Fprintf(&b, `<polyline class="%s" stroke-dasharray="%s" points="%s"/>`, class, dash, strings.TrimSpace(points.String()))
		for i := range c.x {
			fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`, dot, px(c.x[i]), py(c.y[i]))
		}
		y := titleH + 16 + 18*n
		fmt.Fprintf(&b, `<line class="%s" stroke-dasharray="%s" x1="%d" y1="%d" x2="%d" y2="%d"/><text class="small" x="%d" y="%d">%s</text>`+"\n", class, dash, width-legend+8, y-4, width-legend+30, y-4, width-legend+36, y, html.EscapeString(c.label))
	}
	fmt.Fprintf(&b, `<text class="small" x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-legend)/2, bottom+38, html.EscapeString(xName))
	return svg(bottom+50, b.String())
}

// round returns a number at or above v whose quarters are short.
func round(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10} {
		if v <= n*unit {
			return n * unit
		}
	}
	return 12 * unit
}

// figure writes a number with three digits or as many as it has before the point.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// tick writes a number on an axis.
func tick(v float64) string {
	if v == math.Trunc(v) {
		return thousands(int64(v))
	}
	return figure(v)
}

// thousands writes n with commas.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
