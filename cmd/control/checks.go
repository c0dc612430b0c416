package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// maxTrialDays is the longest trial that Stripe takes.
const maxTrialDays = 730

// What several roles are given has to be the same in all of them, and is checked here. Each check names the flag.

// checkListen says what is wrong with the address of a listener.
func checkListen(flag, address, example string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("--%s %q: write it with a port, like %s", flag, address, example)
	}
	return nil
}

// checkPublicURL says what is wrong with where customers reach something.
func checkPublicURL(origin, what string) error {
	if origin == "" {
		return fmt.Errorf("--public-url (PUBLIC_URL) is required: where customers reach %s, such as https://app.example.com", what)
	}
	return checkOrigins("public-url", origin)
}

// checkOrigins says what is wrong with origins of pages.
func checkOrigins(flag string, origins ...string) error {
	var errs []error
	for _, origin := range origins {
		if err := api.CheckOrigin(origin); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	return errors.Join(errs...)
}

// checkURL says what is wrong with the address of a server or a page, which has nothing behind its path; "" is fine.
func checkURL(flag, text, example string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		// Not what it is: that may have a password.
		return fmt.Errorf("--%s: write it like %s", flag, example)
	}
	return nil
}

// checkBotPage says what is wrong with the page of a bot of Telegram's; "" is fine.
func checkBotPage(text string) error {
	const flag, example = "telegram-bot-page", "https://t.me/name_bot"
	if u, err := url.Parse(text); text != "" && (err != nil || len(u.Path) < 2) {
		return fmt.Errorf("--%s: write it like %s", flag, example)
	}
	return checkURL(flag, text, example)
}

// readNetworks reads networks, and says which of them are none.
func readNetworks(flag string, texts []string, example string) (networks []netip.Prefix, _ error) {
	var errs []error
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %q is no network, such as %s", flag, text, example))
			continue
		}
		networks = append(networks, p)
	}
	return networks, errors.Join(errs...)
}

// trustedProxies are the networks of proxies whose word on who asks is believed.
func trustedProxies(texts []string) ([]netip.Prefix, error) {
	return readNetworks("trusted-proxies", texts, "10.0.0.0/8")
}

// checkPepper reads the pepper, and says what is wrong with it.
func checkPepper(s *secretFlag) error {
	return longEnough(s, "the pepper that token-proxy has", contract.MinPepperLen)
}

// checkJWTSecret reads what access tokens are signed with, and says what is wrong with it.
func checkJWTSecret(s *secretFlag) error {
	return longEnough(s, "what access tokens are signed with", api.MinSecret)
}

// longEnough reads a secret that is required, and says if it is too short to be one.
func longEnough(s *secretFlag, what string, least int) error {
	if err := s.required(what); err != nil {
		return err
	}
	if n := len(s.Reveal()); n < least {
		return fmt.Errorf("--%s has %d bytes; it needs %d of them, by chance: openssl rand -base64 48", s.name, n, least)
	}
	return nil
}

// checkTrialDays says what is wrong with the days for which a first subscription costs nothing.
func checkTrialDays(days int64) error {
	if days < 0 || days > maxTrialDays {
		return fmt.Errorf("--trial-days %d: it must be in 0…%d", days, maxTrialDays)
	}
	return nil
}
