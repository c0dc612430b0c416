package control

import (
	"encoding/json"
	"time"
)

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
