// Package telegramsim is a small Telegram: bots with tokens, people who write to them, and
// the Bot API between them, by long polling or by webhook, behind HTTP.
//
// It knows as much of the Bot API as our own bot and the real OpenClaw ask for, and answers
// anything else as Telegram answers an unknown method; Unknown tells of it. What Telegram
// refuses it refuses, in Telegram's words: an unknown token, a second poller, an empty or too
// long message, a message that does not change, a person who never wrote or blocked the bot.
// It is written from Telegram's documentation and shares no code with what it tests.
//
// A test has one of New. People have one of Open, which cmd/telegramsim runs: with pages on which one
// makes bots and writes to them, the same in JSON below /sim, and a file that keeps the bots.
package telegramsim
