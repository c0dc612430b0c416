package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func addOperatorCommand(getenv func(string) string) *cobra.Command {
	var database secretFlag
	var email, role string
	cmd := &cobra.Command{
		Use:   "add-operator",
		Short: "Make an operator, such as the first one",
		Long: `add-operator makes an operator, who signs in at the api's address for operators. The
password is read from the first line of the standard input, so that it is in no list of
processes and no shell's history. Later ones are better made by an admin, by the api.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw control add-operator --email ada@example.com --role admin < password`,
	}
	f := cmd.Flags()
	database.flags(f, databaseFlag, databaseUsage)
	f.StringVar(&email, "email", "", "the operator's e-mail address")
	f.StringVar(&role, "role", string(control.RoleOperator), "support, operator or admin")
	validate := func() error {
		err := checkDatabaseURL(&database)
		if email == "" {
			err = errors.Join(err, errors.New("--email is required"))
		}
		return err
	}
	return command(cmd, getenv, validate, func(cmd *cobra.Command, log *slog.Logger) error {
		password, err := readPassword(cmd)
		if err != nil {
			return err
		}
		o, err := api.MakeOperator(email, control.Role(role), password, time.Now().UTC())
		if err != nil {
			return usageError{err}
		}
		st, err := openStore(cmd.Context(), database.Reveal())
		if err != nil {
			return err
		}
		defer st.Close()
		if err := st.InTx(cmd.Context(), func(tx *store.Tx) error { return tx.InsertOperator(cmd.Context(), "system:add-operator", o) }); err != nil {
			return err
		}
		log.Info("made an operator", "id", o.ID, "role", o.Role)
		return nil
	})
}
