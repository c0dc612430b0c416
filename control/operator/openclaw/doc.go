// Package openclaw is what the rest of the operator has to know of OpenClaw: the file that a
// customer's gateway is configured by, and what the pod around it must be like.
//
// What was found out by running OpenClaw 2026.9.6, and holds until another release is tried
// with test/clients:
//
//   - The gateway runs as any user, without capabilities, with the root file system read-only and
//     with node as the only program on its PATH.
//   - It writes to HOME (below .openclaw: state, sessions and memory in SQLite, the workspace; some
//     caches beside it) and to /tmp, nothing else, as long as OPENCLAW_STATE_DIR says so: without it,
//     media go beside the configuration. A kept HOME keeps conversations, and a message that was
//     answered is not answered again. Telegram lets one gateway at a time poll for a bot, so the old
//     pod must end before the new one starts.
//   - It wants to write its configuration unless OPENCLAW_CONFIG_READONLY is 1; then it keeps what
//     it would have written in memory, and a file that it cannot write is no complaint. The file may be a
//     symbolic link, as those of a Secret's volume are; the file of a bot's token may not.
//   - ${NAME} in any string of the file becomes the environment's NAME, once, at the start. It is so
//     for the key of the provider, the token of the bot, and the gateway's own. None of them is
//     found in what it writes afterwards.
//   - A provider whose name OpenClaw knows as a plugin to be had ("kimi", "moonshot") makes it ask npm
//     before it listens.
//   - /healthz and the other probes answer from any address without a token. With the Control UI off,
//     unknown paths are 404; with it on they would be 200.
//   - From the start until it is ready it uses 12 to 25 seconds of a processor. If a thread of its own does not
//     begin within 5 seconds, as on a node where many start at once, it ends with an error; the kubelet starts it again.
//   - SIGTERM: it answers "draining" and tells people to wait, finishes its turns, and ends with 0. It
//     ends within seconds without work. With a turn under way it waits for that, and with a Telegram
//     that cannot be reached for 325 seconds; the kubelet's SIGKILL then costs that turn.
//   - Its automations start programs, whatever exec is set to: see Render. With cron off and without the
//     tool an agent has none.
//   - It reads variables from a file .env of the directory that it begins in.
//   - It takes several times the memory that its heap has, unless Environment holds it back. What it
//     takes is in MEASURED.md.
package openclaw
