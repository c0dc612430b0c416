// Package telegram has the conversation of package onboarding on Telegram, by a bot of the platform's own
// that polls.
//
// Updates of one person are worked in their order, those of several at once. An update is confirmed once it
// was worked, so that one is worked again whose process died: a question may then be asked twice, and
// nothing is lost. A process that is told to end answers and confirms what it has in hand. Only one process
// may poll a bot, and no webhook may be set for it; the caller sees to that. Any may tell somebody something.
//
// Nobody keeps others waiting: of somebody who writes faster than people do only so much is read, and the
// language model is asked about the newest message of each only.
//
// A message that has a secret, such as the token of the customer's own bot, is deleted from the chat.
package telegram
