// Package stripe has customers billed by Stripe: it is the one place that speaks to it.
//
//   - Inbox takes webhooks: what is signed is kept, and nothing else is done with it.
//   - Processor works what the Inbox kept. An event only says where to look: what a customer
//     is entitled to follows from the subscription as Stripe has it when it is asked, so
//     that order, repetition and forgery of events change nothing. See
//     customers.Service.ApplySubscription for what follows.
//   - Checkout makes the pages on which customers pay, and changes what they pay for.
//   - Meter reports what is paid for token by token.
//   - Bootstrap sets up an account: products, prices, the meter and the webhook endpoint.
//
// The tier is what the price's lookup key says. Metadata decides nothing.
package stripe
