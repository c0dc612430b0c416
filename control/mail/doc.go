// Package mail sends the mails of the outbox by SMTP, each of them once.
//
// Nobody can know whether a mail went out whose server did not answer after its end: such a
// mail is not sent again, and store.UncertainMails shows it. All that has certainly failed
// is tried again, unless the server says that it never will be taken.
package mail
