// Code generated from the api's OpenAPI document by TestTypesAreThoseOfTheAPI. DO NOT EDIT.

export interface Acknowledgement {
  after_ms?: number;
  applied: boolean;
  replica: string;
}

export interface Again {
  /** Also if the event was processed already: that changes nothing that is right. */
  again?: boolean;
}

export interface AuditEntry {
  action: string;
  actor: string;
  at: string;
  customer_id?: string;
  detail?: Record<string, unknown>;
  id: number;
  target: string;
}

export interface AuditEntryList {
  items: AuditEntry[];
  next?: string;
}

export interface Box {
  changed_at: string;
  created_at: string;
  customer_id: string;
  generation: number;
  id: string;
  message?: string;
  namespace: string;
  observed_generation: number;
  state: "pending" | "provisioning" | "active" | "updating" | "suspended" | "unhealthy" | "failed" | "destroying" | "destroyed";
  wants: "run" | "suspend" | "destroy";
}

export interface BoxEvent {
  count: number;
  message: string;
  object: string;
  reason: string;
  time: string;
  type: string;
}

export interface BoxEventList {
  items: BoxEvent[];
  next?: string;
}

export interface BoxList {
  items: Box[];
  next?: string;
}

export interface BoxSettings {
  language?: "en" | "pt-BR";
  system_prompt?: string;
  telegram_users?: number[];
  thinking?: string;
  time_zone?: string;
}

export interface BoxSize {
  /** 1 to 500 characters. */
  reason: string;
  /** The tier whose processor and memory it gets; empty: those of the customer's own. */
  size: string;
}

export interface Created {
  box: Box;
  customer: Customer;
  period: UsagePeriod;
}

export interface CreatedToken {
  box_id: string;
  created_at: string;
  customer_id: string;
  ends_at?: string;
  hint: string;
  id: string;
  revoked_at?: string;
  status: "active" | "suspended" | "revoked";
  /** The token itself. It is shown this once: not in lists, and not to who repeats the request. */
  token?: string;
  version: number;
}

export interface Customer {
  created_at: string;
  email?: string;
  id: string;
  name: string;
  status: "pending" | "active" | "suspended" | "cancelled";
  tier: string;
}

export interface CustomerDetails {
  boxes: Box[];
  created_at: string;
  deleted_at?: string;
  email?: string;
  id: string;
  language: "en" | "pt-BR";
  name: string;
  period?: PeriodUsage;
  status: "pending" | "active" | "suspended" | "cancelled";
  stripe_customer_id?: string;
  subscriptions: Subscription[];
  tier: string;
  tokens: ProxyToken[];
}

export interface DeadLetter {
  dropped_at?: string;
  id: number;
  index: number;
  payload: string;
  reason: string;
  replayed_at?: string;
  replica?: string;
  seen_at: string;
  seq?: number;
  stream_id: string;
}

export interface DeadLetterList {
  items: DeadLetter[];
  next?: string;
}

export interface Job {
  attempt: number;
  created_at: string;
  error?: string;
  finished_at?: string;
  id: number;
  kind: string;
  max_attempts: number;
  scheduled_at: string;
  state: string;
}

export interface JobList {
  items: Job[];
  next?: string;
}

export interface LimitUse {
  limit_tokens: number;
  /** Of the limit, rounded down; of a limit of 0 it is 100. */
  used_percent: number;
  used_tokens: number;
}

export interface ListedCustomer {
  created_at: string;
  email?: string;
  id: string;
  name: string;
  /** The present period, as it was written: up to a few seconds old. */
  period?: LimitUse;
  status: "pending" | "active" | "suspended" | "cancelled";
  tier: string;
}

export interface ListedCustomerList {
  items: ListedCustomer[];
  next?: string;
}

export interface NewCustomer {
  email?: string;
  name: string;
  tier: string;
}

export interface NewOperator {
  email: string;
  /** 12 characters at least, 256 bytes at most. */
  password: string;
  role: "support" | "operator" | "admin";
}

export interface NewToken {
  /** May be left out if the customer has one box. */
  box_id?: string;
}

export interface Operator {
  created_at: string;
  disabled_at?: string;
  email: string;
  id: string;
  role: "support" | "operator" | "admin";
}

export interface OperatorList {
  items: Operator[];
  next?: string;
}

export interface OperatorSignIn {
  email: string;
  password: string;
  /** For programs: answer with tokens instead of cookies. */
  tokens?: boolean;
}

export interface OperatorsBox {
  changed_at: string;
  created_at: string;
  customer_id: string;
  /** What of the cluster is behind message; customers do not see it. */
  detail?: string;
  generation: number;
  has_telegram_token: boolean;
  held: boolean;
  id: string;
  message?: string;
  message_kind?: "quota" | "unschedulable" | "image" | "crash" | "configuration" | "not_ready" | "slow" | "cluster" | "stuck";
  namespace: string;
  observed_generation: number;
  restart: number;
  rotation: number;
  settings: BoxSettings;
  size?: string;
  state: "pending" | "provisioning" | "active" | "updating" | "suspended" | "unhealthy" | "failed" | "destroying" | "destroyed";
  steps: OperatorsStep[];
  /** Characters of the system prompt, which nobody but the customer sees. */
  system_prompt_length: number;
  /** How many may write to the agent; support does not see who. */
  telegram_user_count: number;
  waits_for?: string;
  wants: "run" | "suspend" | "destroy";
}

export interface OperatorsStep {
  /** What of the cluster is behind error; customers do not see it. */
  detail?: string;
  error?: string;
  finished_at?: string;
  generation: number;
  name: string;
  started_at: string;
}

export interface PeriodUsage {
  customer_id: string;
  end?: string;
  left_tokens: number;
  limit_tokens: number;
  limit_version: number;
  /** Up to date; otherwise up to a few seconds old. */
  live: boolean;
  period_id: string;
  start?: string;
  totals: UsageTotals;
  used_tokens: number;
}

export interface PlatformUsage {
  at: string;
  tiers: TierUsage[];
}

export interface Problem {
  detail?: string;
  fields?: Record<string, string>;
  /** Where to pay the invoice that is open. */
  pay_url?: string;
  request_id: string;
  status: number;
  title: string;
  type: string;
}

export interface ProxyToken {
  box_id: string;
  created_at: string;
  customer_id: string;
  ends_at?: string;
  hint: string;
  id: string;
  revoked_at?: string;
  status: "active" | "suspended" | "revoked";
  version: number;
}

export interface ProxyTokenList {
  items: ProxyToken[];
  next?: string;
}

export interface ProxyTraffic {
  id: string;
  in_flight: number;
  /** Left out until it was heard of twice. */
  rates?: TrafficRates;
  started_at: string;
  streams: number;
}

export interface QuotaChange {
  action: "set" | "add" | "reset";
  /** 1 to 500 characters. */
  reason: string;
  /** Weighted tokens; not with reset. */
  tokens?: number;
}

export interface QuotaChanged {
  customer_id: string;
  end?: string;
  limit_tokens: number;
  limit_tokens_before: number;
  limit_version: number;
  period_id: string;
  /** Left out if it is not known which proxies apply the new limit. */
  replicas?: Replicas;
  start?: string;
  totals: UsageTotals;
}

export interface Reason {
  /** 1 to 500 characters. */
  reason: string;
}

export interface Renewal {
  refresh_token: string;
}

export interface Replayed {
  /** They were recorded already. */
  duplicates: number;
  inserted: number;
  /** They were refused again, and are dead letters of their own. */
  parked: number;
}

export interface Replica {
  acked_seq: number;
  first_seen: string;
  highest_seq: number;
  id: string;
  last_beat?: string;
  last_seen: string;
  lost_at?: string;
  lost_reason?: string;
  registered_at?: string;
  status: "live" | "lost";
}

export interface ReplicaList {
  items: Replica[];
  next?: string;
}

export interface Replicas {
  /** All proxies that live apply it. */
  all_applied: boolean;
  applied: Acknowledgement[];
  /** From when the change was asked for until the last of them did, or until they were not waited for any more. */
  took_ms: number;
}

export interface Rotated {
  box_id: string;
  created_at: string;
  customer_id: string;
  ends_at?: string;
  hint: string;
  id: string;
  /** The id of the old token. */
  replaced: string;
  /** When the old token is revoked. */
  revoked_after: string;
  revoked_at?: string;
  status: "active" | "suspended" | "revoked";
  /** The token itself. It is shown this once: not in lists, and not to who repeats the request. */
  token?: string;
  version: number;
}

export interface Rotation {
  /** For how long the old token is good beside the new one: at most a week; 0 revokes it at once. */
  overlap_seconds?: number;
}

export interface SignedIn {
  /** Only if tokens were asked for. */
  access_token?: string;
  /** When to renew the session at the latest. */
  expires_at?: string;
  /** Only if tokens were asked for. It is good once. */
  refresh_token?: string;
  /** When signing in again is needed, unless the session is renewed before. */
  renewable_until?: string;
  /** Of an operator. */
  role?: "support" | "operator" | "admin";
  subject: Subject;
}

export interface StripeEvent {
  api_version: string;
  attempts: number;
  created_at: string;
  error?: string;
  id: string;
  next_attempt_at: string;
  payload?: unknown;
  processed_at?: string;
  received_at: string;
  type: string;
}

export interface StripeEventList {
  items: StripeEvent[];
  next?: string;
}

export interface Subject {
  id: string;
  kind: "customer" | "operator";
}

export interface Subscription {
  cancel_at_period_end: boolean;
  created_at: string;
  customer_id: string;
  failed_payments: number;
  id: string;
  overage_cap_cents?: number;
  pending_from?: string;
  pending_tier?: string;
  period_end: string;
  period_start: string;
  read_at: string;
  replaced_by?: string;
  status: string;
  tier: string;
}

export interface TierUsage {
  customers: number;
  limit_tokens: number;
  tier: string;
  totals: UsageTotals;
}

export interface TierView {
  burst: number;
  concurrent: number;
  custom_system_prompt: boolean;
  monthly_tokens: number;
  name: string;
  overage_cents_per_million: number;
  /** US cents per month. */
  price_cents: number;
  requests_per_second: number;
  telegram_users: number;
  thinking: string;
  title: string;
}

export interface TierViewList {
  items: TierView[];
  next?: string;
}

export interface Traffic {
  at: string;
  /** Requests between authentication and the end of their answer. */
  in_flight: number;
  /** Those that the sums are of. */
  proxies: ProxyTraffic[];
  /** Left out until a proxy was heard of twice. */
  rates?: TrafficRates;
  /** Proxies on the register that announce nothing and show no sign of life: nothing of them is in the sums. */
  silent: string[];
  /** Those of them whose answer comes as events. */
  streams: number;
  /** Proxies that were heard of lately and do not announce what passes through them, since they are ending or of an older build: nothing of them is in the sums. */
  untold: string[];
}

export interface TrafficRates {
  /** Requests that an upstream has seen and that have ended, however. */
  answered_per_second: number;
  /** By why: auth, rate, quota, overload, upstream, request. A class without any is left out. Requests of class upstream may be among the answered. */
  refused_per_second: Record<string, number>;
  /** Prompt and completion, as counted when a request ended; not weighted. */
  tokens_per_second: number;
}

export interface Usage {
  /** By day (UTC) and model. */
  days: UsageShare[];
  from: string;
  /** The present one; left out before the first. */
  period?: PeriodUsage;
  to: string;
}

export interface UsagePeriod {
  customer_id: string;
  end?: string;
  limit_tokens: number;
  limit_version: number;
  period_id: string;
  start?: string;
  totals: UsageTotals;
}

export interface UsageShare {
  cached_tokens: number;
  completion_tokens: number;
  day: string;
  model: string;
  prompt_tokens: number;
  reasoning_tokens: number;
  requests: number;
  settled_tokens: number;
}

export interface UsageTotals {
  cached_tokens: number;
  completion_tokens: number;
  prompt_tokens: number;
  reasoning_tokens: number;
  requests: number;
  settled_tokens: number;
  unbilled_tokens: number;
}

/** What each route takes and answers. */
export interface Routes {
  /** This document. */
  "GET /openapi.json": { input: {}; answer: Record<string, unknown> };
  /** The audit log, newest first. */
  "GET /v1/audit": { input: { query?: { limit?: number; cursor?: string; customer?: string } }; answer: AuditEntryList };
  /** Boxes, oldest first. */
  "GET /v1/boxes": { input: { query?: { limit?: number; cursor?: string; customer?: string; state?: "pending" | "provisioning" | "active" | "updating" | "suspended" | "unhealthy" | "failed" | "destroying" | "destroyed" } }; answer: BoxList };
  /** A box, with its settings and what is done to it. */
  "GET /v1/boxes/{id}": { input: { path: { id: string } }; answer: OperatorsBox };
  /** Destroy a box for ever. */
  "POST /v1/boxes/{id}/destroy": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** What Kubernetes tells about a box. */
  "GET /v1/boxes/{id}/events": { input: { path: { id: string } }; answer: BoxEventList };
  /** What a box's gateway wrote. */
  "GET /v1/boxes/{id}/logs": { input: { path: { id: string }; query?: { tail?: number; follow?: boolean } }; answer: string };
  /** Give a box the resources of another tier. */
  "POST /v1/boxes/{id}/resize": { input: { path: { id: string }; body: BoxSize }; answer: Box };
  /** Start a box anew. */
  "POST /v1/boxes/{id}/restart": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** Have a suspended box run again. */
  "POST /v1/boxes/{id}/resume": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** Give a box a new proxy token. */
  "POST /v1/boxes/{id}/rotate-token": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** Stop a box, and keep all that it has. */
  "POST /v1/boxes/{id}/suspend": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** Customers, oldest first. */
  "GET /v1/customers": { input: { query?: { limit?: number; cursor?: string; status?: "pending" | "active" | "suspended" | "cancelled"; search?: string; used_from?: number } }; answer: ListedCustomerList };
  /** Make a customer that need not pay. */
  "POST /v1/customers": { input: { body: NewCustomer }; answer: Created };
  /** Delete a customer. */
  "DELETE /v1/customers/{id}": { input: { path: { id: string } }; answer: undefined };
  /** A customer. */
  "GET /v1/customers/{id}": { input: { path: { id: string } }; answer: CustomerDetails };
  /** Give a customer one more box. */
  "POST /v1/customers/{id}/boxes": { input: { path: { id: string }; body: Reason }; answer: Box };
  /** The limit of the present period, and what is used of it. */
  "GET /v1/customers/{id}/quota": { input: { path: { id: string } }; answer: PeriodUsage };
  /** Change the limit of the present period. */
  "POST /v1/customers/{id}/quota": { input: { path: { id: string }; body: QuotaChange }; answer: QuotaChanged };
  /** Serve a suspended customer again. */
  "POST /v1/customers/{id}/resume": { input: { path: { id: string }; body: Reason }; answer: Customer };
  /** Refuse all requests of a customer. */
  "POST /v1/customers/{id}/suspend": { input: { path: { id: string }; body: Reason }; answer: Customer };
  /** Make a token. */
  "POST /v1/customers/{id}/tokens": { input: { path: { id: string }; body?: NewToken }; answer: CreatedToken };
  /** What a customer used, by day and model. */
  "GET /v1/customers/{id}/usage": { input: { path: { id: string }; query?: { from?: string; to?: string } }; answer: Usage };
  /** What could not be recorded, newest first. */
  "GET /v1/dead-letters": { input: { query?: { limit?: number; cursor?: string; all?: boolean } }; answer: DeadLetterList };
  /** A dead letter. */
  "GET /v1/dead-letters/{id}": { input: { path: { id: string } }; answer: DeadLetter };
  /** Give it up for ever. */
  "POST /v1/dead-letters/{id}/drop": { input: { path: { id: string }; body: Reason }; answer: undefined };
  /** Try again to record it. */
  "POST /v1/dead-letters/{id}/replay": { input: { path: { id: string } }; answer: Replayed };
  /** Jobs, newest first. */
  "GET /v1/jobs": { input: { query?: { limit?: number; cursor?: string; state?: "available" | "cancelled" | "completed" | "discarded" | "pending" | "retryable" | "running" | "scheduled" } }; answer: JobList };
  /** Work a job no more. */
  "POST /v1/jobs/{id}/cancel": { input: { path: { id: string } }; answer: undefined };
  /** Work a job now. */
  "POST /v1/jobs/{id}/retry": { input: { path: { id: string } }; answer: undefined };
  /** Operators, oldest first. */
  "GET /v1/operators": { input: {}; answer: OperatorList };
  /** Make an operator. */
  "POST /v1/operators": { input: { body: NewOperator }; answer: Operator };
  /** Keep an operator out for good. */
  "DELETE /v1/operators/{id}": { input: { path: { id: string } }; answer: undefined };
  /** Proxies, those seen last first. */
  "GET /v1/replicas": { input: {}; answer: ReplicaList };
  /** Sign out. */
  "DELETE /v1/session": { input: {}; answer: undefined };
  /** Who is signed in. */
  "GET /v1/session": { input: {}; answer: SignedIn };
  /** Sign in. */
  "POST /v1/session": { input: { body: OperatorSignIn }; answer: SignedIn };
  /** Exchange the refresh token. */
  "POST /v1/session/renew": { input: { body?: Renewal }; answer: SignedIn };
  /** What Stripe sent, newest first, without its content. */
  "GET /v1/stripe-events": { input: { query?: { limit?: number; cursor?: string } }; answer: StripeEventList };
  /** Process an event now. */
  "POST /v1/stripe-events/{id}/retry": { input: { path: { id: string }; body?: Again }; answer: undefined };
  /** What can be bought. */
  "GET /v1/tiers": { input: {}; answer: TierViewList };
  /** Tokens, oldest first, revoked ones too. */
  "GET /v1/tokens": { input: { query?: { limit?: number; cursor?: string; customer?: string } }; answer: ProxyTokenList };
  /** Revoke a token. */
  "DELETE /v1/tokens/{id}": { input: { path: { id: string } }; answer: ProxyToken };
  /** Replace a token. */
  "POST /v1/tokens/{id}/rotate": { input: { path: { id: string }; body?: Rotation }; answer: Rotated };
  /** What passes through the proxies, as it does. */
  "GET /v1/traffic": { input: {}; answer: string };
  /** What is used in the present periods, by tier. */
  "GET /v1/usage": { input: {}; answer: PlatformUsage };
}
