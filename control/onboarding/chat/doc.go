// Package chat has the conversation of package onboarding in a browser, by HTTP:
//
//	POST   /onboarding/v1/conversation           open one, or go on with the one of the cookie
//	GET    /onboarding/v1/conversation           the conversation as it is
//	DELETE /onboarding/v1/conversation           forget it, unless it was or can be paid for, and the cookie
//	POST   /onboarding/v1/conversation/messages  say something
//	POST   /onboarding/v1/conversation/session   sign in whoever has become a customer in it
//	GET    /onboarding/v1/conversation/events    the conversation now and whenever it changes, as server-sent events
//
// The pages are of the same origin, which leads /onboarding here. What is refused is said as the api says it.
//
// Who takes part is known by a cookie that no script can read and that is sent to this host only. Whatever
// changes something has to come from a page of ours. What strangers can do is limited by address: each
// conversation takes a place, and each message may cost tokens of the platform's own.
package chat
