package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

// askPassword reads a password: of a file, or of who sits at the terminal, who does not see
// it, or of the first line of the standard input.
func askPassword(cmd *cobra.Command, prompt, file string) (string, error) {
	if file != "" {
		return passwordFile(file)
	}
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt+": ")
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(b), nil
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && line == "" {
		return "", usageError{errors.New("the password is read from the standard input, which is empty: give --password-file")}
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// signedIn is a session as it is shown: without its tokens.
type signedIn struct {
	URL   string    `json:"api_url"`
	Email string    `json:"email"`
	ID    string    `json:"operator_id"`
	Role  string    `json:"role"`
	Until time.Time `json:"renewable_until"`
}

func (a *app) showSession(cmd *cobra.Command, v client.Session) error {
	return a.show(cmd, signedIn{v.URL, v.Email, v.ID, string(v.Role), v.Until}, table{
		head: []string{"API", "OPERATOR", "EMAIL", "ROLE", "SIGNED IN UNTIL"},
		rows: [][]string{{v.URL, v.ID, v.Email, string(v.Role), when(v.Until)}},
	})
}

func (a *app) loginCommand() *cobra.Command {
	var email, file string
	cmd := calls("signIn", &cobra.Command{
		Use:   "login --api-url URL --email ADDRESS",
		Short: "Sign in at the operators' api",
		Long: `login signs in, and keeps the session in a file that only you can read ($OPENCLAW_SESSION_FILE, or
~/.config/openclaw/session.json): commands need neither URL nor password from then on. The session
ends when it was not used for 12 hours, or by "openclawctl logout". The password is asked for, or
read from --password-file or the first line of the standard input.

Programs sign in without this command, when they need to, if OPENCLAW_API_URL, OPENCLAW_API_EMAIL
and OPENCLAW_API_PASSWORD_FILE are set.`,
		Example: `  openclawctl login --api-url https://ops.example.com --email ada@example.com`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.sessions()
			if err != nil {
				return err
			}
			if email == "" {
				email = s.Email
			}
			if email == "" {
				return usageError{errors.New("--email (OPENCLAW_API_EMAIL) is required: who signs in")}
			}
			if s.File == "" {
				return usageError{errors.New("there is no place to keep the session: set OPENCLAW_SESSION_FILE")}
			}
			if _, err := a.clientOf(s.URL, s); err != nil {
				return err // before anybody types a password
			}
			var password string
			if file == "" && s.Password != nil && email == s.Email {
				password, err = s.Password()
			} else {
				password, err = askPassword(cmd, "Password of "+email, file)
			}
			if err != nil {
				return err
			}
			v, err := s.SignIn(cmd.Context(), email, password)
			if err != nil {
				return err
			}
			return a.showSession(cmd, v)
		},
	})
	cmd.Flags().StringVar(&email, "email", "", "your e-mail address; default: $OPENCLAW_API_EMAIL")
	cmd.Flags().StringVar(&file, "password-file", "", "file whose first line is the password")
	return cmd
}

func (a *app) logoutCommand() *cobra.Command {
	return calls("signOut", &cobra.Command{
		Use:     "logout",
		Short:   "End the session",
		Long:    `logout ends the session at the api, for all who use it, and removes it from this machine.`,
		Example: `  openclawctl logout`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.sessions()
			if err != nil {
				return err
			}
			if _, err := s.Kept(); errors.Is(err, client.ErrSignIn) {
				return a.show(cmd, struct{}{}, table{head: []string{"NOT SIGNED IN"}})
			}
			s.Email, s.Password = "", nil // nobody signs in to sign out
			c, err := a.clientOf(s.URL, s)
			if err != nil {
				return err
			}
			_, err = c.Do(cmd.Context(), client.Request{Method: http.MethodDelete, Path: "/v1/session"}, nil)
			if err != nil && !errors.Is(err, client.ErrSignIn) {
				return err
			}
			if err := s.Forget(); err != nil {
				return err
			}
			return a.show(cmd, struct {
				SignedOut string `json:"signed_out"`
			}{s.URL}, table{head: []string{"SIGNED OUT OF"}, rows: [][]string{{s.URL}}})
		},
	})
}

func (a *app) whoamiCommand() *cobra.Command {
	var renew bool
	cmd := calls("getSession renewSession", &cobra.Command{
		Use:   "whoami",
		Short: "Say who is signed in, where, and with which role",
		Long: `whoami asks the api who it takes you for. With --renew it exchanges the session's tokens first, as
commands do by themselves when they are about to end.`,
		Example: `  openclawctl whoami`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.sessions()
			if err != nil {
				return err
			}
			if renew {
				if _, err := s.Renew(cmd.Context()); err != nil {
					return err
				}
			}
			c, err := a.clientOf(s.URL, s)
			if err != nil {
				return err
			}
			now, err := get[api.SignedIn](cmd.Context(), c, "", "/v1/session", nil)
			if err != nil {
				return err
			}
			v, err := s.Kept()
			if err != nil {
				return err
			}
			v.ID, v.Role, v.Until = now.Subject.ID, now.Role, now.RenewableUntil
			return a.showSession(cmd, v)
		},
	})
	cmd.Flags().BoolVar(&renew, "renew", false, "exchange the session's tokens first")
	return cmd
}

func (a *app) openapiCommand() *cobra.Command {
	return calls("getSpecification", &cobra.Command{
		Use:     "openapi",
		Short:   "Print the OpenAPI document of the operators' api",
		Long:    `openapi prints what the api says it can do, as JSON, or with --output yaml as YAML.`,
		Example: `  openclawctl openapi --output yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			base, err := a.address()
			if err != nil {
				return err
			}
			c, err := a.clientOf(base, nil)
			if err != nil {
				return err
			}
			document, err := get[json.RawMessage](cmd.Context(), c, "", "/openapi.json", nil)
			if err != nil {
				return err
			}
			if a.output == "table" { // a document is none
				a.output = "json"
			}
			return a.show(cmd, document)
		},
	})
}
