// The conversation with the onboarding agent, as its listener has it (control/onboarding/chat), written by hand: it has no document
// of which types could be made, as *.gen.ts are.
import { Client } from "../api/client";

export interface Conversation {
  state: "new" | "greeting" | "use_case" | "telegram" | "preferences" | "recommending" | "awaiting_payment" | "provisioning" | "complete" | "failed" | "abandoned";
  /** Nothing follows. */
  final: boolean;
  language: "en" | "pt-BR";
  /** What is new, and how to go on. */
  reply: { text?: string; quick?: { id: string; label: string }[]; pay_url?: string };
  history: { at: string; ours?: boolean; text: string }[];
  /** Steps of the agent that is being made, as the operator of the boxes names them. */
  progress?: { name: string; started_at: string; finished_at?: string; trouble?: string }[];
}

interface Routes {
  /** Begins; the key of the conversation becomes a cookie that scripts cannot read. */
  "POST /onboarding/v1/conversation": { input: { body: { language: "en" | "pt-BR"; time_zone: string; tier?: string } }; answer: Conversation };
  /** Goes on with the one of the cookie; 404 without one. */
  "GET /onboarding/v1/conversation": { input: {}; answer: Conversation };
  "POST /onboarding/v1/conversation/messages": { input: { body: { text: string } | { choice: string } }; answer: Conversation };
  /** Exchanges a conversation that is complete for a session of its customer. */
  "POST /onboarding/v1/conversation/session": { input: {}; answer: undefined };
  "DELETE /onboarding/v1/conversation": { input: {}; answer: undefined };
}

export const conversation = new Client<Routes>();

/** Server-sent events named conversation: at the beginning, and whenever something has changed. */
export const conversationEvents = "/onboarding/v1/conversation/events";

/** A bot's token is a secret: what was written is shown without it while the answer is on its way. */
export function withoutTokens(text: string): string {
  return text.replace(/\b\d{6,12}:[\w-]{20,}/g, "•••");
}
