package api_test

import "testing"

// TestSecurity lists what is tried against the api. All of it is refused, and what shows that
// someone tries is in the audit log, at a rate that nobody can raise.
func TestSecurity(t *testing.T) {
	t.Parallel()
	for _, attack := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"a customer asks for what is another's", crossCustomer},
		{"a customer names another one, on every route of customers", crossCustomerOnEveryRoute},
		{"another site has a browser send a request", crossSite},
		{"another site has a browser send a request, on every route that changes something", crossSiteOnEveryRoute},
		{"a browser is made to carry a session before someone signs in", fixation},
		{"a refresh token is used a second time", refreshTokenReuse},
		{"a program signs in to a session of the other side", sessionsOfTheOtherSide},
		{"an access token is forged", forgedAccessTokens},
		{"passwords are guessed, of one account, from one address, and by both", bruteForce},
		{"secrets of mails are guessed", guessedLinks},
		{"accounts are looked for by how long a sign-in takes", accountsByTime},
		{"accounts are looked for by asking for new passwords", accountsByReset},
		{"a role calls what is for a higher one", forbiddenIsAudited},
		{"too many requests come from one account, or one address", floods},
		{"webhooks are forged", forgedWebhooks},
		{"webhooks are replayed", replayedWebhooks},
		{"forged webhooks are to fill the audit log", floodOfForgedWebhooks},
		{"strangers are to keep webhooks out", webhooksHaveTheirOwnLimit},
		{"bodies are malformed", bodies},
		{"bodies are malformed, on every route", malformedOnEveryRoute},
		{"bodies are too large, on every route", oversizeOnEveryRoute},
		{"SQL is in texts, and stays text", injection},
		{"SQL is in every parameter, every field and every header", injectionOnEveryRoute},
	} {
		t.Run(attack.name, attack.try)
	}
}
