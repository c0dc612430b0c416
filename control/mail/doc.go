// Package mail sends the mails of the outbox by SMTP, each of them at most once per kind and
// cause.
//
// At most once is the promise, and not at least once: nobody can know whether a mail went out
// whose server did not answer after its end, or whose sender was killed between sending
// and noting it. Such a mail is not sent again; store.UncertainMails and the metric
// billing_mails_uncertain show it. A sender claims one mail at a time, so that a kill costs
// one at most. All that has certainly failed is tried again, unless the server says that it
// never will be taken. The Message-ID of a mail is the same in all attempts.
package mail
