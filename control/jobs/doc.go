// Package jobs does what is to be done later: River keeps the jobs in Postgres, so that a
// job is there if, and only if, the change that wants it was committed. A job runs at
// least once, and again with growing pauses while it fails; so each kind must be one that
// may run twice.
//
// Programs that only insert jobs call New without handlers. Those that work them say which:
// mails, the revocation of tokens, boxes and retention have a queue each, and any number of
// programs may work one.
package jobs
