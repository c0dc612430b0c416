package control

import (
	"encoding/json"
	"time"
)

// Conversation is what was said while somebody became a customer, as long as it is kept.
type Conversation struct {
	ID        string             `json:"id"`
	State     string             `json:"state"`
	CreatedAt time.Time          `json:"created_at"`
	ExpiresAt time.Time          `json:"expires_at"` // then it is forgotten
	Turns     []ConversationTurn `json:"turns"`
}

// ConversationTurn is something that was said.
type ConversationTurn struct {
	At   time.Time `json:"at"`
	Ours bool      `json:"ours,omitempty"` // the platform said it
	Text string    `json:"text"`
}

// OnboardingSession is a conversation by which somebody becomes a customer, as it is kept. What
// Data means only package onboarding knows; it has no secrets.
type OnboardingSession struct {
	ID           string
	KeyDigest    [32]byte // of what the browser's cookie has; zero on Telegram
	TelegramUser int64    // who writes, on Telegram; 0 on the web
	CustomerID   string   // "" until there is such a customer
	State        string
	Version      int64 // each change raises it by one
	Data         json.RawMessage
	SealedBot    []byte // the bot's token, until its box has it; nil for none
	CreatedAt    time.Time
	UpdatedAt    time.Time
	ExpiresAt    time.Time
}
