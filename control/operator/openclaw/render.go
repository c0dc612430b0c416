package openclaw

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// provider is what token-proxy is called in the file. It must be none of OpenClaw's own names:
// for "kimi" a gateway asks npm for a plugin before it starts.
const provider = "token-proxy"

// object is what JSON is made from. Its keys are written in order.
type object map[string]any

// Render returns the file for a configuration: the same bytes for the same configuration, so
// that their hash tells whether a pod has to be replaced. It fails as Validate does.
func (c *Config) Render() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c.file()); err != nil {
		return nil, fmt.Errorf("render openclaw.json: %w", err)
	}
	return b.Bytes(), nil
}

func (c *Config) file() object {
	return object{
		"gateway":  c.gateway(),
		"models":   c.models(),
		"agents":   object{"defaults": c.agent()},
		"tools":    c.tools(),
		"channels": object{"telegram": c.telegram()},
		// Whoever writes has a conversation of their own: by default all people who are allowed to
		// write share one, and would read in it what the others said.
		"session": object{"dmScope": "per-channel-peer", "maintenance": object{"mode": "enforce", "maxDiskBytes": "1gb"}},
		// Only these are loaded. Each other one costs memory, and brings tools, providers or
		// listeners; bundled providers find keys in the environment by themselves.
		"plugins": object{
			"allow": []string{"memory-core", "telegram"},
			"entries": object{
				// By night it would let the model work over what it remembers, at the customer's cost.
				"memory-core": object{"config": object{"dreaming": object{"enabled": false}}},
			},
		},
		// Without a provider of embeddings memory is found by its words.
		"memory":  object{"search": object{"provider": "none", "fallback": "none"}},
		"browser": object{"enabled": false},
		// Nothing is scheduled. Whatever is, in this release, can be made to start a program: a stream, a
		// script, a condition, or a reminder that its owner turns into a command.
		"cron": object{"enabled": false, "triggers": object{"enabled": false}},
		// The chat commands that change the gateway. Its configuration is ours, and is read-only.
		// Without ownerAllowFrom nobody is an owner. An owner may do more than write: see and change what
		// others of the team have made, and run programs.
		"commands": object{
			"native": "auto", "nativeSkills": false,
			"bash": false, "config": false, "debug": false, "mcp": false, "plugins": false, "restart": false,
		},
		// Nothing is told to anyone, and the image is what we made it.
		"update":      object{"checkOnStart": false, "auto": object{"enabled": false}},
		"telemetry":   object{"enabled": false},
		"discovery":   object{"mdns": object{"mode": "off"}},
		"transcripts": object{"enabled": false},
		// What is logged at info names people by id and messages by length, never their text.
		"logging": object{
			"level":        "silent", // of the file beside it; the cluster keeps the console
			"consoleLevel": "info", "consoleStyle": "json",
			"audit": object{"enabled": false, "messages": "off"},
		},
	}
}

func (c *Config) gateway() object {
	port := c.Port
	if port == 0 {
		port = Port
	}
	return object{
		"mode": "local",
		"port": port,
		// The kubelet's probes come to the pod's address. They need no token; everything else does.
		"bind": "lan",
		"auth": object{"mode": "token", "token": ref(EnvGatewayToken)},
		// Nobody signs in to a customer's gateway, from wherever.
		"controlUi": object{"enabled": false},
		"terminal":  object{"enabled": false},
		"tailscale": object{"mode": "off"},
		"nodes": object{
			"allowSkills": false, "browser": object{"mode": "off"}, "pluginTools": object{"enabled": false},
			"pairing": object{"autoApproveLocal": false, "sshVerify": false},
		},
		// Another file comes with another pod.
		"reload": object{"mode": "off"},
	}
}

func (c *Config) models() object {
	list := make([]object, 0, len(c.Models))
	for _, m := range c.Models {
		list = append(list, m.entry())
	}
	return object{
		// Replace, so that no other provider is there at all.
		"mode":           "replace",
		"catalogRefresh": object{"enabled": false},
		"providers": object{provider: object{
			"baseUrl": c.ProxyURL,
			"apiKey":  ref(EnvProxyToken),
			"api":     "openai-completions",
			// token-proxy ends what is silent for two minutes, with an error that is told apart from
			// a lost connection. So this is for whole answers: long ones take several minutes.
			"timeoutSeconds": modelTimeout,
			"models":         list,
		}},
	}
}

// Seconds that one answer of the model may take, and all that follows from one message.
const (
	modelTimeout = 900
	turnTimeout  = 1800
)

func (m Model) entry() object {
	name, input := m.Name, []string{"text"}
	if name == "" {
		name = m.ID
	}
	if m.Images {
		input = append(input, "image")
	}
	compat := object{
		// A provider that OpenClaw does not know is not asked for usage otherwise.
		"supportsUsageInStreaming": true,
		"supportsStore":            false,
		"supportsDeveloperRole":    false,
		"supportsReasoningEffort":  false,
		"maxTokensField":           "max_completion_tokens",
	}
	e := object{
		"id": m.ID, "name": name, "input": input, "contextWindow": m.Context, "maxTokens": m.MaxOutput,
		"reasoning": m.Reasoning != ReasoningNone,
		// Prices are ours to reckon; the agent's own sums would only be wrong.
		"cost":   object{"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
		"compat": compat,
	}
	if m.Budget > 0 {
		e["contextTokens"] = m.Budget
	}
	return e
}

// thinking is what tells the model how much to think, in Kimi's own words. OpenClaw has formats for
// that, but for a provider that it does not know it writes none of them as Kimi has it.
func (m Model) thinking(level string) object {
	switch m.Reasoning {
	case ReasoningSwitch:
		return object{"thinking": object{"type": "enabled"}}
	case ReasoningEffort:
		return object{"reasoning_effort": map[string]string{"low": "low", "medium": "high", "high": "max"}[level]}
	}
	return nil
}

func (c *Config) agent() object {
	allowed, settings := make([]string, 0, len(c.Models)), object{}
	for _, m := range c.Models {
		name := provider + "/" + m.ID
		allowed = append(allowed, name)
		if body := m.thinking(c.Thinking); body != nil {
			settings[name] = object{"params": object{"extra_body": body}}
		}
	}
	return object{
		"model":           object{"primary": allowed[0]},
		"modelPolicy":     object{"allow": allowed},
		"models":          settings,
		"thinkingDefault": c.Thinking,
		"userTimezone":    c.TimeZone,
		"timeoutSeconds":  turnTimeout,
		// By default the agent is woken every half an hour with all of its instructions: 48 times
		// 13,000 tokens a day, half of what a small tier has for a month.
		"heartbeat": object{"every": "0m"},
		// Skills are programs to run.
		"skills":  []string{},
		"sandbox": object{"mode": "off"},
	}
}

// tools is what an agent may do in a pod without a shell, a browser or a screen: read, write and
// edit files of its own workspace, remember, fetch public pages (OpenClaw's guard and the
// NetworkPolicy both keep it from private addresses), look at pictures, plan and ask. It is a list
// of what is allowed, so that a release that brings another tool does not bring it here. What a
// tool can do does not show in its name: whoever adds one tries it with a real gateway first, in
// TestGateway. The people of a team share the workspace and its memory, though not conversations.
//
// Not allowed, and why: exec, process and code execution would run whatever anyone who can
// write to the agent, or a page that it reads, talks it into, beside the pod's secrets. So would
// automations (cron), so an agent cannot remind anybody of anything. File
// tools that leave the workspace would read those secrets (/proc/self/environ). gateway,
// plugins and openclaw change the gateway. nodes, browser, screen, canvas, portal, computer and
// terminal have nothing to work on. Sub-agents and sessions spend the customer's tokens in
// parallel, unseen. Image, music, video and speech need providers that are not there.
func (c *Config) tools() object {
	allow := []string{
		"read", "write", "edit", "apply_patch", "memory_search", "memory_get", "web_fetch", "session_status",
		"message", "ask_user", "progress_card", "get_goal", "create_goal", "update_goal",
	}
	if slices.ContainsFunc(c.Models, func(m Model) bool { return m.Images }) {
		allow = append(allow, "view_image")
	}
	return object{
		"allow":    allow,
		"fs":       object{"workspaceOnly": true},
		"exec":     object{"mode": "deny"},
		"elevated": object{"enabled": false},
		"codeMode": false, // programs of the model's, in the gateway's own process
		"swarm":    false,
		// Rare ones are described when they are looked for: all of them at once would be 8,000 of
		// 18,000 tokens of every request. In this mode they are called one by one, not by programs.
		"toolSearch":   object{"enabled": true, "mode": "tools"},
		"agentToAgent": object{"enabled": false},
		"sessions":     object{"visibility": "self"}, // not what other people of the team said
		"web":          object{"search": object{"enabled": false}, "fetch": object{"enabled": true}},
		// A model that calls the same tool for ever spends a month's tokens in an hour.
		"loopDetection": object{"enabled": true},
	}
}

func (c *Config) telegram() object {
	t := object{
		"enabled":  true,
		"botToken": ref(EnvTelegramToken), // not tokenFile: it refuses symbolic links, and a Secret's files are some
		"dmPolicy": "allowlist", "allowFrom": c.users(),
		"groupPolicy": "disabled", "joinIntro": false,
		"configWrites":          false,
		"reactionNotifications": "off",
		"direct":                object{"*": object{"systemPrompt": c.prompt()}},
	}
	if c.TelegramAPI != "" {
		t["apiRoot"] = c.TelegramAPI
	}
	return t
}

// users are the people who may write, in order.
func (c *Config) users() []string {
	out := make([]string, 0, len(c.TelegramUsers))
	for _, id := range slices.Sorted(slices.Values(c.TelegramUsers)) {
		out = append(out, strconv.FormatInt(id, 10))
	}
	return out
}

// prompt is what the agent is told beside OpenClaw's own instructions.
func (c *Config) prompt() string {
	name, _ := language(c.Language)
	text := "Write in " + name + ", unless the person you talk to writes in another language or asks for one."
	if c.SystemPrompt != "" {
		text += "\n\n" + c.SystemPrompt
	}
	return escape(text)
}

// ref refers to an environment variable.
func ref(name string) string { return "${" + name + "}" }

var reference = regexp.MustCompile(`\$\{[A-Z_][A-Z0-9_]*\}`)

// escape makes OpenClaw take a text as it is. In any string of the file it replaces ${NAME} by
// the environment's NAME: a customer's prompt would have the agent say the box's tokens.
func escape(text string) string {
	return reference.ReplaceAllString(text, `$$$0`)
}
