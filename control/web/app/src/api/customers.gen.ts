// Code generated from the api's OpenAPI document by TestTypesAreThoseOfTheAPI. DO NOT EDIT.

export interface APIKey {
  created_at: string;
  customer_id: string;
  hint: string;
  id: string;
  last_used_at?: string;
  name: string;
  revoked_at?: string;
}

export interface APIKeyList {
  items: APIKey[];
  next?: string;
}

export interface Account {
  created_at: string;
  deleted_at?: string;
  email?: string;
  id: string;
  language: "en" | "pt-BR";
  name: string;
  status: "pending" | "active" | "suspended" | "cancelled";
  stripe_customer_id?: string;
  tier: string;
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

export interface BoxDetail {
  changed_at: string;
  created_at: string;
  customer_id: string;
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
  steps: BoxStep[];
  waits_for?: string;
  wants: "run" | "suspend" | "destroy";
}

export interface BoxDetailList {
  items: BoxDetail[];
  next?: string;
}

export interface BoxSettings {
  language?: "en" | "pt-BR";
  system_prompt?: string;
  telegram_users?: number[];
  thinking?: string;
  time_zone?: string;
}

export interface BoxSettingsChange {
  /** Of the agent; empty: that of the account. */
  language?: "" | "en" | "pt-BR";
  /** At most 8,000 characters, in plans that allow it. */
  system_prompt?: string;
  /** The numbers of who may write to the agent; how many, the plan says. */
  telegram_users?: number[];
  /** low, medium or high; empty: that of the plan. */
  thinking?: string;
  /** A name of the IANA database, such as America/Sao_Paulo; empty: UTC. */
  time_zone?: string;
}

export interface BoxStep {
  error?: string;
  finished_at?: string;
  generation: number;
  name: string;
  started_at: string;
}

export interface Confirmation {
  /** From the link of the mail. It is good once. */
  token: string;
}

export interface Conversation {
  created_at: string;
  expires_at: string;
  id: string;
  state: string;
  turns: ConversationTurn[];
}

export interface ConversationTurn {
  at: string;
  ours?: boolean;
  text: string;
}

export interface CreatedAPIKey {
  created_at: string;
  customer_id: string;
  hint: string;
  id: string;
  /** The key itself. It is shown this once: not in lists, and not to who repeats the request. */
  key?: string;
  last_used_at?: string;
  name: string;
  revoked_at?: string;
}

export interface Event {
  admitted_at: string;
  basis: string;
  box_id: string;
  cached: number;
  completion: number;
  customer_id: string;
  duration_us: number;
  face: string;
  model_asked: string;
  model_served: string;
  outcome: string;
  period_id: string;
  prompt: number;
  reasoning: number;
  replica: string;
  request_id: string;
  reserved: number;
  seq: number;
  settled: number;
  status: number;
  tier: string;
  token_id: string;
  ttfb_us: number;
  unbilled: number;
  upstream: string;
  upstream_request_id?: string;
}

export interface Export {
  account: Account;
  api_keys: APIKey[];
  audit: AuditEntry[];
  boxes: BoxDetail[];
  conversations: Conversation[];
  /** Oldest first. */
  events: Event[];
  identities: Identity[];
  mails: Mail[];
  periods: UsagePeriod[];
  subscriptions: Subscription[];
  tokens: ProxyToken[];
}

export interface Identity {
  created_at: string;
  customer_id: string;
  id: string;
  provider: string;
  subject: string;
  verified_at?: string;
}

export interface Installation {
  /** Real money moves with live only. */
  payments: "none" | "simulated" | "test" | "live";
  /** Where to talk to the onboarding agent on Telegram: an address that takes start=, on t.me unless Telegram is simulated. */
  telegram_bot?: string;
}

export interface Invoice {
  amount_cents: number;
  created_at: string;
  currency: string;
  id: string;
  number?: string;
  pdf?: string;
  status: string;
  url?: string;
}

export interface InvoiceList {
  items: Invoice[];
  next?: string;
}

export interface Link {
  url: string;
}

export interface Mail {
  attempts: number;
  cause: string;
  created_at: string;
  customer_id: string;
  error?: string;
  id: number;
  kind: string;
  language: "en" | "pt-BR";
  params?: Record<string, unknown>;
  sent_at?: string;
}

export interface MySubscription {
  cancel_at_period_end: boolean;
  /** How much a period may cost above its price, in US cents. */
  overage_cap_cents?: number;
  /** The tier of the next period, if it is another one. */
  pending_tier?: string;
  period_end: string;
  /** In Stripe's words. */
  status: string;
  tier: string;
}

export interface NewAPIKey {
  /** For people; 1 to 100 characters. */
  name: string;
}

export interface Overage {
  /** In US cents, 1,000,000 at most; 0: no more than the limit may be used. */
  cap_cents: number;
}

export interface PasswordChange {
  current_password: string;
  new_password: string;
  /** Revoke all API keys, too. They go on otherwise. */
  revoke_api_keys?: boolean;
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

export interface Profile {
  created_at: string;
  email?: string;
  /** The address was shown to be yours. */
  email_confirmed: boolean;
  id: string;
  language: "en" | "pt-BR";
  name: string;
  status: "pending" | "active" | "suspended" | "cancelled";
  /** Without it, nothing is paid. */
  subscription?: MySubscription;
  tier: string;
}

export interface ProfileChange {
  language?: "en" | "pt-BR";
  name?: string;
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

export interface Purchase {
  tier: string;
}

export interface Received {
  received: boolean;
}

export interface Reset {
  /** 12 characters at least, 256 bytes at most. */
  new_password: string;
  /** From the link of the mail. It is good once. */
  token: string;
}

export interface ResetRequest {
  email: string;
}

export interface SignIn {
  email: string;
  password: string;
}

export interface SignUp {
  email: string;
  /** English by default. */
  language?: "en" | "pt-BR";
  /** 1 to 200 characters. */
  name: string;
  /** 12 characters at least, 256 bytes at most. */
  password: string;
  /** What will be bought; the smallest one by default. It entitles to nothing before it is paid. */
  tier?: string;
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

export interface TelegramToken {
  /** As Telegram's @BotFather gives it; empty takes it away. It is never shown again. */
  token: string;
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
  /** What this installation is. */
  "GET /v1/installation": { input: {}; answer: Installation };
  /** Delete your account. */
  "DELETE /v1/me": { input: {}; answer: undefined };
  /** Your account. */
  "GET /v1/me": { input: {}; answer: Profile };
  /** Change your name or language. */
  "PATCH /v1/me": { input: { body: ProfileChange }; answer: Profile };
  /** Your API keys, revoked ones too. */
  "GET /v1/me/api-keys": { input: {}; answer: APIKeyList };
  /** Make an API key. */
  "POST /v1/me/api-keys": { input: { body: NewAPIKey }; answer: CreatedAPIKey };
  /** Revoke an API key. */
  "DELETE /v1/me/api-keys/{id}": { input: { path: { id: string } }; answer: undefined };
  /** Your boxes, with their settings and what is done to them. */
  "GET /v1/me/boxes": { input: {}; answer: BoxDetailList };
  /** One of your boxes. */
  "GET /v1/me/boxes/{id}": { input: { path: { id: string } }; answer: BoxDetail };
  /** Start a box anew. */
  "POST /v1/me/boxes/{id}/restart": { input: { path: { id: string } }; answer: BoxDetail };
  /** What you have chosen of a box. */
  "GET /v1/me/boxes/{id}/settings": { input: { path: { id: string } }; answer: BoxSettings };
  /** Change a box. */
  "PATCH /v1/me/boxes/{id}/settings": { input: { path: { id: string }; body: BoxSettingsChange }; answer: BoxDetail };
  /** Give a box your Telegram bot. */
  "PUT /v1/me/boxes/{id}/telegram-token": { input: { path: { id: string }; body: TelegramToken }; answer: BoxDetail };
  /** Where to pay for a tier. */
  "POST /v1/me/checkout": { input: { body: Purchase }; answer: Link };
  /** What changes, as it does. */
  "GET /v1/me/events": { input: {}; answer: string };
  /** All that is known of you. */
  "GET /v1/me/export": { input: {}; answer: Export };
  /** Your newest invoices. */
  "GET /v1/me/invoices": { input: {}; answer: InvoiceList };
  /** Change your password. */
  "POST /v1/me/password": { input: { body: PasswordChange }; answer: undefined };
  /** Where to manage the subscription. */
  "POST /v1/me/portal": { input: {}; answer: Link };
  /** Cancel at the end of the period. */
  "POST /v1/me/subscription/cancel": { input: {}; answer: Profile };
  /** Allow more than the limit, up to an amount. */
  "PUT /v1/me/subscription/overage": { input: { body: Overage }; answer: Profile };
  /** Take a cancellation back. */
  "POST /v1/me/subscription/resume": { input: {}; answer: Profile };
  /** Change to another tier. */
  "POST /v1/me/subscription/tier": { input: { body: Purchase }; answer: Profile };
  /** What you used, by day and model. */
  "GET /v1/me/usage": { input: { query?: { from?: string; to?: string } }; answer: Usage };
  /** Mail the link that confirms your address again. */
  "POST /v1/me/verify-email": { input: {}; answer: undefined };
  /** Mail a link to set a new password. */
  "POST /v1/password-reset": { input: { body: ResetRequest }; answer: undefined };
  /** Set a new password with a mailed link. */
  "POST /v1/password-reset/confirm": { input: { body: Reset }; answer: undefined };
  /** Sign out. */
  "DELETE /v1/session": { input: {}; answer: undefined };
  /** Who is signed in. */
  "GET /v1/session": { input: {}; answer: SignedIn };
  /** Sign in. */
  "POST /v1/session": { input: { body: SignIn }; answer: SignedIn };
  /** Exchange the refresh token. */
  "POST /v1/session/renew": { input: {}; answer: SignedIn };
  /** Make an account, and sign in. */
  "POST /v1/signup": { input: { body: SignUp }; answer: Account };
  /** What can be bought. */
  "GET /v1/tiers": { input: {}; answer: TierViewList };
  /** Confirm an e-mail address with a mailed link. */
  "POST /v1/verify-email": { input: { body: Confirmation }; answer: undefined };
  /** For Stripe only. */
  "POST /v1/webhooks/stripe": { input: {}; answer: Received };
}
