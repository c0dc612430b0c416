// Package openclaw is what the rest of the operator has to know of OpenClaw: the file that a
// customer's gateway is configured by, and what the pod around it must be like.
package openclaw

// Port is where the gateway listens.
const Port = 18789

// Names of the environment variables that hold the box's secrets. The file refers to them.
const (
	EnvProxyToken    = "OPENCLAW_PROXY_TOKEN"   // for token-proxy, ocp_…
	EnvGatewayToken  = "OPENCLAW_GATEWAY_TOKEN" // for whoever wants to speak to the gateway; random, known to nobody
	EnvTelegramToken = "TELEGRAM_BOT_TOKEN"
)
