package openclaw

import (
	"fmt"
	"slices"
	"time"
)

// Port is where the gateway listens, for the kubelet's probes.
const Port = 18789

// Where things are in the pod. All else may be read-only.
const (
	DataDir    = "/data"         // HOME: state, workspace and memory; kept when the pod is replaced
	TempDir    = "/tmp"          // may be lost at any time
	ConfigDir  = "/etc/openclaw" // where the rendered file is mounted, read-only
	ConfigFile = ConfigDir + "/openclaw.json"
	// WorkDir is where the gateway begins. It reads variables from a file .env there, so it must be
	// nowhere that the agent can write to.
	WorkDir = "/"
)

// Where things are in the image, as OpenClaw's own images have them. Another layout is an option of
// the operator's.
const (
	Node = "node"              // found on the image's PATH
	Main = "/app/openclaw.mjs" // OpenClaw's main program
)

// Names of the environment variables that hold the box's secrets. The file refers to them.
const (
	EnvProxyToken    = "OPENCLAW_PROXY_TOKEN"   // #nosec G101 -- a name; for token-proxy, ocp_…
	EnvGatewayToken  = "OPENCLAW_GATEWAY_TOKEN" // #nosec G101 -- a name; for whoever speaks to the gateway; random, and nobody needs it
	EnvTelegramToken = "TELEGRAM_BOT_TOKEN"     // #nosec G101 -- a name
)

// Paths of the probes, on Port. They answer without a token, in JSON.
const (
	// LivenessPath answers 200 {"ok":true,"status":"live"} while the process serves.
	LivenessPath = "/healthz"
	// ReadinessPath, for the startup probe as well, answers 503 {"ok":false,"status":"starting"},
	// then 200 {"ok":true,"status":"started"}, and 503 with "draining" once it was told to end.
	// Not /readyz: that fails with Telegram, of which replacing the pod would be no cure.
	ReadinessPath = "/startupz"
)

// StartupLimit is how long a start may take before the pod is given up. It takes 12 to 25
// seconds of a processor, and minutes on a node where all gateways start at once. Who gives up
// early starts again, and makes it worse for all.
const StartupLimit = 10 * time.Minute

// GivenUpAfter is when the kubelet has given up a start for certain: its last probe may take a while,
// and so does the news of it. Who tells of a gateway that does not become ready tells it then and not
// before: until then it may still come up, and taking it away would only begin its start anew.
const GivenUpAfter = StartupLimit + time.Minute

// GracePeriod is how long the gateway may take to end after SIGTERM, when it is replaced: it
// finishes what its agent is doing, whose tokens are paid, and tells people who write meanwhile.
// Without work it ends in 1 to 3 seconds; of itself it waits for 315, and 10 more to close.
const GracePeriod = 330 * time.Second

// ShortGrace is for whoever deletes the pod for a reason that cannot wait for an answer: the gateway
// does not respond, or nobody shall get one any more.
const ShortGrace = time.Minute

// Command returns the arguments of the program node: the gateway, in the foreground. main is
// OpenClaw's openclaw.mjs.
func Command(main string) []string {
	// This option cannot be in NODE_OPTIONS.
	return []string{"--optimize-for-size", main, "gateway", "run"}
}

// EnvVar is one variable of the pod's environment.
type EnvVar struct{ Name, Value string }

// Environment returns what the gateway's environment has beside its secrets, in a fixed
// order. home is DataDir and file ConfigFile, except in tests. memoryMiB is the container's limit.
func Environment(home, file, timeZone string, memoryMiB int64) []EnvVar {
	return slices.Concat([]EnvVar{
		{"HOME", home},
		{"TZ", timeZone},
		// Without it some of the state goes beside the configuration.
		{"OPENCLAW_STATE_DIR", home + "/.openclaw"},
		{"OPENCLAW_CONFIG_PATH", file},
		// Nothing writes the file, nor a changed copy of it.
		{"OPENCLAW_CONFIG_READONLY", "1"},
		// Nothing is downloaded, by any of its ways.
		{"OPENCLAW_NO_AUTO_UPDATE", "1"},
		{"OPENCLAW_OFFLINE", "1"},
		{"OPENCLAW_DISABLE_BONJOUR", "1"},
	}, memory(memoryMiB))
}

// memory is what keeps a gateway small: a dozen threads, each with a heap of its own, and
// processes beside it. By default each heap grows its young part to 48 MiB before it cleans up,
// and glibc gives each thread an arena of its own that it never returns. The old part is bounded in
// each heap, not in all, so a third of the limit is what the main one may have.
func memory(limitMiB int64) []EnvVar {
	return []EnvVar{
		{"MALLOC_ARENA_MAX", "2"},
		{"NODE_OPTIONS", fmt.Sprintf("--max-old-space-size=%d --max-semi-space-size=2 --v8-pool-size=1", max(256, limitMiB/3))},
	}
}
