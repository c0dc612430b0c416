// Package onboarding is the conversation by which somebody becomes a customer: five to seven questions,
// a payment, and an agent that runs.
//
// A state machine owns the facts. Step is a pure function: a session and an input give the next session,
// what is to be done, and what is said. It alone decides on the state, the tier that is suggested and the
// price that is named, by rules that stand in this package; what costs money needs a word of the customer
// that the machine itself reads, such as "yes". Whether something was paid and what became of the box is
// read from Postgres, whatever the client says.
//
// A language model helps with language only. It is asked for fields of a closed schema, each of which the
// machine checks again, and for one sentence that goes before the machine's own, which is dropped if it
// says anything that it has no business with (see checkLead). What is asked and promised is always said in
// sentences that are prepared here, in both languages. So without the model, or with one that obeys an
// attacker, the conversation goes the same way.
//
// The token of a customer's bot is cut out of a message before anything else is done with it. It is in no
// prompt, no history, no log: it goes to Telegram to be checked, and then it is kept sealed until the box
// has it, which keeps it as any other.
//
// Service keeps sessions in Postgres, a version for each change, so that of two messages at once none is
// lost. A conversation can be taken up again for 24 hours, while a payment or a box is waited for longer, and then nothing
// personal of it is kept.
package onboarding
