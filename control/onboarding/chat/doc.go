// Package chat has the conversation of package onboarding in a browser, by HTTP:
//
//	POST   /v1/onboarding           open one, or go on with the one of the cookie
//	GET    /v1/onboarding           the conversation as it is
//	POST   /v1/onboarding/messages  say something
//	GET    /v1/onboarding/events    the conversation whenever it changes, as server-sent events
//
// Who takes part is known by a cookie that no script can read and that is sent to this host only. Whatever
// changes something has to come from a page of ours. What strangers can do is limited by address: each
// conversation takes a place, and each message may cost tokens of the platform's own.
package chat
