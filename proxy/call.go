package proxy

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/hangup"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Why a call is cut. The upstream's connection is closed at once; the reason decides
// the outcome and what the client is told.
var (
	errClientGone = errors.New("the client hung up")
	errRevoked    = errors.New("the token was revoked or suspended")
	errDrained    = errors.New("the proxy is shutting down")
	errSuspended  = errors.New("the subscription was suspended")
	errTail       = errors.New("the upstream did not close its body after the end mark")
)

// call is one request from accept to settle. It is owned by the goroutine that serves
// the connection, and then, if it is a stream, by the event loop that drives it. Others, who find it in the Server's callSet or watch its connection, may
// call cancel.Cancel and clientLeft, and read digest, route and known. It holds copies,
// never a RequestCtx: that is recycled while a stream still runs.
type call struct {
	s         *Server
	start     time.Time
	requestID string
	conn      net.Conn
	bodyLen   int

	// accept
	face      kimi.Face
	route     route
	remote    netip.Addr
	http10    bool   // chunks cannot be sent
	choices   int    // how many answers a stream carries; 0 is one
	userAgent []byte // aliases the request, like req

	// authenticate
	digest contract.Digest
	grant  *contract.Grant
	known  atomic.Pointer[contract.Grant] // grant, for others to read; from enlist on

	// admit
	req         kimi.Request // its slices alias the request body: only until forward returns
	model       string       // as asked
	entered     bool         // counts as in flight for its customer
	ratelimit   rateState
	answer      quota.Answer
	promised    atomic.Int64 // the limit under which its tokens are held, if that is above grant's
	hold        quota.Hold
	admitted    time.Time
	promptBound int64 // prompt tokens that were reserved
	outputBound int64 // completion tokens that were reserved, all choices together
	edits       kimi.Edits

	// forward
	target       *upstream.Target
	served       string
	upstreamName string
	upstreamID   string // the upstream's name for the request
	cancel       upstream.Canceler
	departure    departure    // what happens when the client leaves
	peer         *hangup.Peer // watched while the call runs; nil: not, or by an event loop
	slot         journal.Slot // the request in the journal, from before it is sent until it is settled
	resp         *upstream.Response
	forwarded    bool // the upstream may have seen the request: an event is due
	ttfb         time.Duration

	// relay
	loop       *loopStream // drives it, if an event loop does; of the callSet
	usage      kimi.Usage
	outputSeen int64 // upper bound of the completion tokens that came
	finished   bool  // the upstream said why it stopped: its counts are final
	relayed    bool  // something of the answer came
	streamed   bool  // it comes as events

	// settle
	blocked  string // reason, when refused
	status   int
	settled  bool
	outcome  contract.Outcome
	counts   kimi.Counts
	basis    contract.Basis
	charged  int64
	overrun  int64 // weighted tokens that the upstream counted beyond counts
	unbilled int64
	closed   bool
}

// rateState is what the x-ratelimit-…-requests headers say.
type rateState struct {
	known     bool
	remaining int
}

func (c *call) contractFace() contract.Face {
	if c.face == kimi.Anthropic {
		return contract.FaceAnthropic
	}
	return contract.FaceOpenAI
}
