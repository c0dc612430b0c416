package api

import (
	"fmt"
	"net/http"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// maxAPIKeys is how many keys a customer may have that are not revoked.
const maxAPIKeys = 20

// NewAPIKey is what a new key is called.
type NewAPIKey struct {
	Name string `json:"name" doc:"For people; 1 to 100 characters."`
}

// CreatedAPIKey is a new key.
type CreatedAPIKey struct {
	control.APIKey
	Key string `json:"key,omitempty" doc:"The key itself. It is shown this once: not in lists, and not to who repeats the request."`
}

func (a *API) serveAPIKeys(c *call) (any, error) {
	var keys []control.APIKey
	err := c.mine(func(tx *store.Tx) (err error) { keys, err = tx.APIKeys(c.ctx(), c.customerID()); return err })
	return List[control.APIKey]{Items: some(keys)}, err
}

func (a *API) serveNewAPIKey(c *call) (any, error) {
	var in NewAPIKey
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name, err := text("name", in.Name, 100)
	if err != nil {
		return nil, err
	}
	raw := newSecret(apiKeyPrefix)
	k := control.APIKey{
		ID: control.NewID(control.APIKeyID), CustomerID: c.customerID(), Digest: a.digest(raw), Hint: raw[len(raw)-4:], Name: name, CreatedAt: a.now(),
	}
	err = c.mine(func(tx *store.Tx) error {
		keys, err := tx.APIKeys(c.ctx(), c.customerID())
		if err != nil {
			return err
		}
		live := 0
		for _, k := range keys {
			if k.RevokedAt.IsZero() {
				live++
			}
		}
		if live >= maxAPIKeys {
			return fail(kindConflict(), fmt.Sprintf("There are %d keys, and there may not be more. Revoke one.", live))
		}
		if err := tx.InsertAPIKey(c.ctx(), c.actor(), k); err != nil {
			return err
		}
		return c.note(c.ctx(), tx, CreatedAPIKey{APIKey: k})
	})
	if err != nil {
		return nil, err
	}
	return CreatedAPIKey{APIKey: k, Key: raw}, nil
}

func (a *API) serveRevokeAPIKey(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return nil, c.mine(func(tx *store.Tx) error { return tx.RevokeAPIKey(c.ctx(), c.actor(), c.customerID(), id, a.now()) })
}

func (a *API) keyRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/me/api-keys", who: customerSession(), serve: a.serveAPIKeys,
			op: operation{id: "listApiKeys", tag: "me", summary: "Your API keys, revoked ones too", status: http.StatusOK, answer: List[control.APIKey]{}}},
		{method: http.MethodPost, path: "/v1/me/api-keys", who: customerSession(), serve: a.serveNewAPIKey,
			op: operation{id: "createApiKey", tag: "me", summary: "Make an API key", body: NewAPIKey{}, status: http.StatusCreated, answer: CreatedAPIKey{},
				about: "A key can read what its owner can, and change nothing: no keys, no password, no subscription, not the account."}},
		{method: http.MethodDelete, path: "/v1/me/api-keys/{id}", who: customerSession(), serve: a.serveRevokeAPIKey,
			op: operation{id: "revokeApiKey", tag: "me", summary: "Revoke an API key", status: http.StatusNoContent, about: "It is refused from then on."}},
	}
}
