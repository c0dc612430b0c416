package proxy_test

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Every test of the package runs with the default driver of streams, the event loop where there
// is one. Those in which streams matter run once more with a goroutine for each stream, but for what
// only the event loop has or can do: that is in eventloop_linux_test.go.
func TestGoroutineDriver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"ClientGoneDrained": TestClientGoneDrained, "DrainedCallsEnd": TestDrainedCallsEnd, "DrainsAreBounded": TestDrainsAreBounded,
		"SlowReaderDrained": TestSlowReaderDrained, "DrainReturnsLeases": TestDrainReturnsLeases, "DrainWithoutRedis": TestDrainWithoutRedis,
		"DrainWaitsForNobodyWhoDoesNotRead": TestDrainWaitsForNobodyWhoDoesNotRead,
		"DrainWaitsForNoRest":               TestDrainWaitsForNoRest, "DrainTellsAfterASilence": TestDrainTellsAfterASilence, "LeavesBehindItsNextRequest": TestLeavesBehindItsNextRequest,
		"Endings": TestEndings, "EndingDrained": TestEndingDrained, "EndingRevoked": TestEndingRevoked,
		"AnswerHeadersAreRebuilt": TestAnswerHeadersAreRebuilt, "HTTP10": TestHTTP10,
		"LimitLoweredBelowUse": TestLimitLoweredBelowUse, "LimitLoweredAfterAnUntoldRaise": TestLimitLoweredAfterAnUntoldRaise,
		"LimitLoweredKeepsHolds": TestLimitLoweredKeepsHolds, "Metrics": TestMetrics, "PanicsAreCaught": TestPanicsAreCaught,
		"OneLogLinePerRequest": TestOneLogLinePerRequest, "StreamsOutliveTimeouts": TestStreamsOutliveTimeouts,
		"RedisAwayDuringAStream": TestRedisAwayDuringAStream, "RefusedWhileDraining": TestRefusedWhileDraining,
		"SamplesPassByteForByte": TestSamplesPassByteForByte, "IncludeUsageIsInjected": TestIncludeUsageIsInjected,
		"ZeroUsageIsNotBelieved": TestZeroUsageIsNotBelieved, "EarlyUsageOfACutStreamIsNotFinal": TestEarlyUsageOfACutStreamIsNotFinal,
		"OversizedAnswersLeaveTheBreakerClosed": TestOversizedAnswersLeaveTheBreakerClosed, "OverrunOfACutStream": TestOverrunOfACutStream,
		"SuspendedWhileStreaming": TestSuspendedWhileStreaming, "CommentsAreNoOutput": TestCommentsAreNoOutput,
		"SlowReader": TestSlowReader, "KeptConnections": TestKeptConnections, "KeptConnectionsAtRandom": TestKeptConnectionsAtRandom, "PipelinedRequests": TestPipelinedRequests,
		"StreamThenClose": TestStreamThenClose, "IdleAfterAStream": TestIdleAfterAStream, "SlowRequestAfterAStream": TestSlowRequestAfterAStream,
		"HalfClosed": TestHalfClosed, "SlowReaderGetsEverything": TestSlowReaderGetsEverything, "LargeEvents": TestLargeEvents,
		"BodyThatStaysOpen": TestBodyThatStaysOpen, "DrainWithKeptConnections": TestDrainWithKeptConnections,
		"EndingsTLS": TestEndingsTLS, "KeepAliveAfterStreams": TestKeepAliveAfterStreams, "Traffic": TestTraffic,
		"StreamsTakePlaces": TestStreamsTakePlaces,
	} {
		t.Run(name, test)
	}
}

// What measures the process runs alone.
func TestGoroutineDriverLeavesNothing(t *testing.T) {
	t.Run("Endings", TestEndingsLeaveNothing)
	t.Run("Bodies", TestStreamsDoNotKeepBodies)
}

// driver chooses what drives the streams of the replicas of a test.
func driver(t testing.TB) option {
	return func(c *proxy.Config) {
		if strings.HasPrefix(t.Name(), "TestGoroutineDriver") {
			c.StreamDriver = "goroutine"
		}
	}
}
