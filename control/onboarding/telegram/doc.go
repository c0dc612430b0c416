// Package telegram has the conversation of package onboarding on Telegram, by a bot of the platform's own
// that polls.
//
// Updates of one person are worked in their order, those of several at once. An update is confirmed once it
// was worked, so that one is worked again whose process died: a question may then be asked twice, and
// nothing is lost. Only one process may poll a bot; the caller sees to that.
//
// A message that has a secret, such as the token of the customer's own bot, is deleted from the chat.
package telegram
