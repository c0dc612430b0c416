package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func addLoginCommand(getenv func(string) string) *cobra.Command {
	var database secretFlag
	var customer string
	cmd := &cobra.Command{
		Use:   "add-login",
		Short: "Let a customer log in that an operator made",
		Long: `add-login gives a customer a password, with which it logs in at the pages by its e-mail
address. Whoever signed up has one already, and is refused. The password is read from the first
line of the standard input, so that it is in no list of processes and no shell's history.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw control add-login --customer c1234567890abcdef < password`,
	}
	f := cmd.Flags()
	database.flags(f, databaseFlag, databaseUsage)
	f.StringVar(&customer, "customer", "", "id of the customer, which must have an e-mail address")
	validate := func() error {
		err := checkDatabaseURL(&database)
		if customer == "" {
			err = errors.Join(err, errors.New("--customer is required"))
		}
		return err
	}
	return command(cmd, getenv, validate, func(cmd *cobra.Command, log *slog.Logger) error {
		password, err := readPassword(cmd)
		if err != nil {
			return err
		}
		st, err := openStore(cmd.Context(), database.Reveal())
		if err != nil {
			return err
		}
		defer st.Close()
		account, err := st.Account(cmd.Context(), customer)
		if err != nil {
			return err
		}
		if !account.DeletedAt.IsZero() {
			return fmt.Errorf("customer %s: %w: it was deleted", customer, control.ErrNotFound)
		}
		identity, err := api.MakeLogin(account, password, time.Now().UTC())
		if err != nil {
			return usageError{err}
		}
		if err := st.InTx(cmd.Context(), func(tx *store.Tx) error { return tx.AddPassword(cmd.Context(), "system:add-login", identity) }); err != nil {
			return err
		}
		log.Info("a customer can log in", "customer", account.ID)
		return nil
	})
}
