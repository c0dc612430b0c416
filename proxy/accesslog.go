package proxy

import (
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// ServiceName is what each line of the log names as its service.
const ServiceName = "token-proxy"

// accessLog writes the log's lines of requests.
type accessLog struct {
	out   io.Writer // nil: nobody wants them
	fixed []byte    // what all have between the time and the request
}

func newAccessLog(out io.Writer, replica string) accessLog {
	l := accessLine(`","level":"INFO","msg":"request"`)
	l.text("service", ServiceName)
	l.text("replica", replica)
	return accessLog{out, l}
}

// linePool holds buffers for the lines of the access log.
var linePool = sync.Pool{New: func() any { b := make([]byte, 0, 768); return &b }}

// logLine writes the one line that the log has of each request, as slog's JSON handler
// would, which takes ten times as long: nothing else is written once per request.
func (c *call) logLine(now time.Time, took time.Duration) {
	log := &c.s.accessLog
	if log.out == nil {
		return
	}
	buf := linePool.Get().(*[]byte)
	l := accessLine((*buf)[:0])
	l = append(l, `{"time":"`...)
	l = now.AppendFormat(l, time.RFC3339Nano)
	l = append(l, log.fixed...)
	l.text("request_id", c.requestID)
	l.number("status", int64(c.status))
	l.millis("took_ms", took)
	l.key("remote")
	l = append(c.remote.AppendTo(append(l, '"')), '"')
	if c.grant != nil {
		l.text("customer", c.grant.CustomerID)
		l.text("token", c.grant.TokenID)
	}
	if c.blocked != "" {
		l.text("blocked", c.blocked)
	}
	if c.forwarded {
		l.text("model", c.served)
		l.text("upstream", c.upstreamName)
		l.text("upstream_id", c.upstreamID)
		l.text("outcome", string(c.outcome))
		l.text("basis", string(c.basis))
		l.number("prompt", c.counts.Prompt)
		l.number("cached", c.counts.Cached)
		l.number("completion", c.counts.Completion)
		l.number("charged", c.charged)
		l.millis("ttfb_ms", c.ttfb)
	}
	l = append(l, '}', '\n')
	_, _ = log.out.Write(l) // where should that be told?
	*buf = l
	linePool.Put(buf)
}

// accessLine is a line of the access log that is being written.
type accessLine []byte

func (l *accessLine) key(name string) {
	*l = append(append(append(*l, ',', '"'), name...), '"', ':')
}

func (l *accessLine) text(name, value string) {
	l.key(name)
	*l = kimi.AppendString(*l, value)
}

func (l *accessLine) number(name string, n int64) {
	l.key(name)
	*l = strconv.AppendInt(*l, n, 10)
}

// millis writes d in milliseconds with three decimals.
func (l *accessLine) millis(name string, d time.Duration) {
	us := max(d.Microseconds(), 0)
	l.number(name, us/1000)
	*l = append(*l, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
}
