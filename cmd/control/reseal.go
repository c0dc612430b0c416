package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// sealsFlag and sealsUsage are the same in all roles.
const (
	sealsFlag  = "box-secrets-key"
	sealsUsage = "what secrets of boxes are sealed with in Postgres: 32 random bytes in hex or base64, or several such keys separated by commas, the newest first: it seals, and all of them open"
)

// sealsOf reads the keys; nil without any.
func sealsOf(s *secretFlag) (*secret.Keys, error) {
	if err := s.read(); err != nil || s.Text == "" {
		return nil, err
	}
	keys, err := secret.ParseKeys(s.Reveal())
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", sealsFlag, err)
	}
	return keys, nil
}

func resealCommand(getenv func(string) string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Seal the secrets of boxes anew, with the newest key",
		Long: `reseal opens the secrets of boxes that an older key sealed, and seals them with the newest
one, and exits. One that no key opens it leaves as it is, goes on, and exits with 1.

To replace the key, so that at any time every process opens what any other seals:
  1. put the new one behind the old one in BOX_SECRETS_KEY of api, operator and onboarding-agent, and restart
     them all;
  2. put it in front, and restart them all again;
  3. run reseal with both keys until it says that it resealed 0;
  4. take the old one away, and restart them. Whoever is about to become a customer, and whose bot the old one
     sealed, is asked for it again.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw BOX_SECRETS_KEY_FILE=box-secrets-key control reseal`,
	}
	var database, seals secretFlag
	var keys *secret.Keys
	database.flags(cmd.Flags(), databaseFlag, databaseUsage)
	seals.flags(cmd.Flags(), sealsFlag, sealsUsage)
	return command(cmd, getenv,
		func() (err error) {
			if err := checkDatabaseURL(&database); err != nil {
				return err
			}
			if err := seals.required("the keys, the newest first"); err != nil {
				return err
			}
			keys, err = sealsOf(&seals)
			return err
		},
		func(cmd *cobra.Command, log *slog.Logger) error {
			st, err := openStore(cmd.Context(), database.Reveal())
			if err != nil {
				return err
			}
			defer st.Close()
			boxes := &customers.Boxes{Service: &customers.Service{Store: st, Seals: keys}}
			n, err := boxes.Reseal(cmd.Context(), "system:reseal")
			if err != nil {
				return err
			}
			log.Info("all secrets of boxes are sealed with the newest key", "resealed", n)
			return nil
		})
}
