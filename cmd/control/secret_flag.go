package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// secretFlag is a setting that must not be shown. It is given by the command line, which others
// can see, by the environment, or by a file.
type secretFlag struct {
	secret.Text // once it was read, also that of the file

	name, file string
}

// flags adds --name and --name-file.
func (s *secretFlag) flags(f *pflag.FlagSet, name, usage string) {
	s.name = name
	f.StringVar((*string)(&s.Text), name, "", usage+"; arguments are visible to others, so use a file or the environment")
	f.StringVar(&s.file, name+"-file", "", "file with the same")
}

// read takes it from its file, if one is given.
func (s *secretFlag) read() error {
	switch {
	case s.file == "":
		return nil
	case s.Text != "":
		return fmt.Errorf("--%s and --%s-file are both given; which one?", s.name, s.name)
	}
	b, err := os.ReadFile(s.file)
	if err != nil {
		return fmt.Errorf("--%s-file: %w", s.name, err)
	}
	if s.Text = secret.Text(strings.TrimSpace(string(b))); s.Text == "" {
		return fmt.Errorf("--%s-file: %s is empty", s.name, s.file)
	}
	s.file = "" // so that it is read once
	return nil
}

// required reads it, and complains if it is not given.
func (s *secretFlag) required(what string) error {
	if err := s.read(); err != nil {
		return err
	}
	if s.Text == "" {
		variable := strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
		return fmt.Errorf("--%s-file (%s_FILE) or %s is required: %s", s.name, variable, variable, what)
	}
	return nil
}

// readPassword reads a password from the first line of what a command is given: so it is in no list of processes and
// no shell's history.
func readPassword(cmd *cobra.Command) (string, error) {
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", usageError{fmt.Errorf("read the password from the standard input: %w", err)}
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// stripeKey reads a secret key of Stripe's, which need not be given. One that a browser may have
// opens nothing here.
func (s *secretFlag) stripeKey() error {
	if err := s.read(); err != nil {
		return err
	}
	if key := s.Reveal(); key != "" && !strings.HasPrefix(key, "sk_") && !strings.HasPrefix(key, "rk_") {
		return fmt.Errorf("--%s begins with neither sk_ nor rk_: it is no secret key of Stripe's", s.name)
	}
	return nil
}
