//go:build generated

// Command smoke uses the api by clients that were generated from its OpenAPI documents, as a
// customer and as an operator, and fails where an answer is not what the document says.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/clients/openapi/customers"
	"github.com/andreabadesso/openclaw-cloud/test/clients/openapi/operators"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := customer(ctx, os.Getenv("CUSTOMERS_URL"))
	if err == nil {
		err = operator(ctx, os.Getenv("OPERATORS_URL"), id)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// jar sends the cookies that it got, and the header against forged requests. They are for TLS
// only, which http.CookieJar takes seriously; the test has none.
type jar map[string]string

func (j jar) edit(_ context.Context, r *http.Request) error {
	for name, value := range j {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	r.Header.Set("X-OpenClaw-CSRF", "1")
	return nil
}

func (j jar) keep(r *http.Response) {
	for _, k := range r.Cookies() {
		j[k.Name] = k.Value
	}
}

func unexpected(what, status string, body []byte) error {
	return fmt.Errorf("%s: %s %s", what, status, body)
}

func customer(ctx context.Context, url string) (id string, err error) {
	cookies := jar{}
	c, err := customers.NewClientWithResponses(url, customers.WithRequestEditorFn(cookies.edit))
	if err != nil {
		return "", err
	}
	up, err := c.SignUpWithResponse(ctx, nil, customers.SignUp{Name: "Ada", Email: "ada@example.com", Password: "correct horse battery staple"})
	if err != nil {
		return "", err
	}
	if up.JSON201 == nil || string(up.JSON201.Status) != "pending" {
		return "", unexpected("sign up", up.Status(), up.Body)
	}
	cookies.keep(up.HTTPResponse)
	me, err := c.GetMeWithResponse(ctx)
	if err != nil {
		return "", err
	}
	if me.JSON200 == nil || me.JSON200.Id != up.JSON201.Id || me.JSON200.EmailConfirmed || me.JSON200.Subscription != nil {
		return "", unexpected("who I am", me.Status(), me.Body)
	}
	key, err := c.CreateApiKeyWithResponse(ctx, nil, customers.NewAPIKey{Name: "smoke"})
	if err != nil {
		return "", err
	}
	if key.JSON201 == nil || key.JSON201.Key == nil {
		return "", unexpected("an API key", key.Status(), key.Body)
	}
	program, err := customers.NewClientWithResponses(url, customers.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+*key.JSON201.Key)
		return nil
	}))
	if err != nil {
		return "", err
	}
	usage, err := program.GetMyUsageWithResponse(ctx, &customers.GetMyUsageParams{})
	if err != nil {
		return "", err
	}
	if usage.JSON200 == nil || usage.JSON200.Period != nil || len(usage.JSON200.Days) != 0 {
		return "", unexpected("usage", usage.Status(), usage.Body)
	}
	tiers, err := c.ListTiersWithResponse(ctx)
	if err != nil {
		return "", err
	}
	if tiers.JSON200 == nil || len(tiers.JSON200.Items) != 3 || tiers.JSON200.Items[0].PriceCents != 1900 {
		return "", unexpected("tiers", tiers.Status(), tiers.Body)
	}
	// Errors are what the document says, too.
	no, err := program.CreateApiKeyWithResponse(ctx, nil, customers.NewAPIKey{Name: "smoke"})
	if err != nil {
		return "", err
	}
	if p := no.ApplicationproblemJSON4XX; p == nil || p.Status != http.StatusForbidden || p.RequestId == "" {
		return "", unexpected("a key that makes keys", no.Status(), no.Body)
	}
	money, err := c.CreateCheckoutWithResponse(ctx, nil, customers.Purchase{Tier: "pro"})
	if err != nil {
		return "", err
	}
	if p := money.ApplicationproblemJSON5XX; p == nil || p.Status != http.StatusServiceUnavailable {
		return "", unexpected("payments without Stripe", money.Status(), money.Body)
	}
	return up.JSON201.Id, nil
}

func operator(ctx context.Context, url, customer string) error {
	anonymous, err := operators.NewClientWithResponses(url, operators.WithRequestEditorFn(jar{}.edit))
	if err != nil {
		return err
	}
	tokens := true
	in, err := anonymous.SignInWithResponse(ctx, nil, operators.OperatorSignIn{
		Email: os.Getenv("OPERATOR_EMAIL"), Password: os.Getenv("OPERATOR_PASSWORD"), Tokens: &tokens,
	})
	if err != nil {
		return err
	}
	if in.JSON200 == nil || in.JSON200.AccessToken == nil {
		return unexpected("sign in", in.Status(), in.Body)
	}
	o, err := operators.NewClientWithResponses(url, operators.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+*in.JSON200.AccessToken)
		return nil
	}))
	if err != nil {
		return err
	}
	made, err := o.CreateCustomerWithResponse(ctx, nil, operators.NewCustomer{Name: "Acme", Tier: "pro"})
	if err != nil {
		return err
	}
	if made.JSON201 == nil || made.JSON201.Customer.Tier != "pro" {
		return unexpected("make a customer", made.Status(), made.Body)
	}
	limit := 1
	seen := map[string]bool{}
	for cursor := (*string)(nil); ; {
		page, err := o.ListCustomersWithResponse(ctx, &operators.ListCustomersParams{Limit: &limit, Cursor: cursor})
		if err != nil {
			return err
		}
		if page.JSON200 == nil || len(page.JSON200.Items) != 1 {
			return unexpected("customers", page.Status(), page.Body)
		}
		seen[page.JSON200.Items[0].Id] = true
		if cursor = page.JSON200.Next; cursor == nil {
			break
		}
	}
	if len(seen) != 2 || !seen[customer] || !seen[made.JSON201.Customer.Id] {
		return errors.New("the pages of customers do not have both")
	}
	audit, err := o.ListAuditWithResponse(ctx, &operators.ListAuditParams{Customer: &customer})
	if err != nil {
		return err
	}
	if audit.JSON200 == nil || len(audit.JSON200.Items) == 0 || audit.JSON200.Items[0].At.IsZero() {
		return unexpected("audit log", audit.Status(), audit.Body)
	}
	return nil
}
