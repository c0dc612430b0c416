package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func migrateCommand(getenv func(string) string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to the schema that this build needs",
		Long: `migrate brings the database to the schema that this build needs, and exits. Any
number may run at once: they take turns, and the later ones find nothing to do.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw control migrate`,
	}
	var database secretFlag
	database.flags(cmd.Flags(), databaseFlag, databaseUsage)
	return command(cmd, getenv,
		func() error { return checkDatabaseURL(&database) },
		func(cmd *cobra.Command, log *slog.Logger) error {
			st, err := store.Open(cmd.Context(), database.Reveal())
			if err != nil {
				return err
			}
			defer st.Close()
			applied, err := st.Migrate(cmd.Context())
			if err != nil {
				return err
			}
			if err := st.EnsurePartitions(cmd.Context()); err != nil {
				return err
			}
			jobTables, err := jobs.Migrate(cmd.Context(), st, log)
			if err != nil {
				return err
			}
			log.Info("the database has the newest schema", "applied", applied+jobTables)
			return nil
		})
}
