package localserver

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PostgresUser is the superuser of the clusters that InitPostgres creates.
const PostgresUser = "openclaw"

// InitPostgres creates a cluster in the directory data, which must not exist
// yet and whose parent the user cred must be able to enter. The superuser
// PostgresUser gets the password; it is asked for on every connection, because
// any account of this machine can reach a loopback port. The server has to be
// started under the same cred.
func InitPostgres(ctx context.Context, programs PostgresPrograms, data, password string, cred *syscall.Credential) error {
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("localserver: create the Postgres data directory: %w", err)
	}
	// Beside the data directory, because initdb wants that one empty.
	secret := data + ".password"
	defer os.Remove(secret)
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		return fmt.Errorf("localserver: initdb: %w", err)
	}
	if err := chown(secret, cred); err != nil {
		return err
	}
	if err := chown(data, cred); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, programs.Initdb,
		"-D", data, "-U", PostgresUser, "-E", "UTF8", "--locale=C",
		"-A", "scram-sha-256", "--pwfile="+secret, "--no-sync")
	cmd.Dir = data
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("localserver: initdb: %w\n%s", err, out)
	}
	return nil
}

// PostgresArgs returns the arguments of the postgres program for a cluster made
// by InitPostgres, listening on loopback only and on no Unix socket. Each of
// settings is a "name=value" that wins over the defaults.
func PostgresArgs(data string, port int, settings ...string) []string {
	args := []string{"-D", data}
	defaults := []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=",
		"shared_buffers=32MB",
		// Segments as files of the data directory vanish with it, also when the
		// server was killed.
		"dynamic_shared_memory_type=mmap",
		"timezone=UTC",
		"log_timezone=UTC",
	}
	for _, setting := range append(defaults, settings...) {
		args = append(args, "-c", setting)
	}
	return args
}

// PostgresURL returns the connection URL of a database in a cluster made by
// InitPostgres.
func PostgresURL(port int, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(PostgresUser, password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Psql runs one SQL statement through the psql program and returns its
// unaligned output without the final newline. It is for set-up work that must
// not depend on a driver; it starts a process each time.
func Psql(ctx context.Context, programs PostgresPrograms, databaseURL, statement string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		// The parser's own error would quote the URL, password included.
		return "", fmt.Errorf("localserver: psql: the database URL is not a URL")
	}
	env := append(cleanEnv(), "PGCONNECT_TIMEOUT=10")
	if password, ok := u.User.Password(); ok {
		// Through the environment: arguments are visible to other accounts.
		env = append(env, "PGPASSWORD="+password)
		u.User = url.User(u.User.Username())
	}
	cmd := exec.CommandContext(ctx, programs.Psql, "--no-psqlrc", "--quiet", "--no-password",
		"--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--dbname="+u.String(), "--command="+statement)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("localserver: psql: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// cleanEnv is a small environment for Postgres programs: PGHOST and its kin of
// the caller's own must not lead them elsewhere.
func cleanEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + filepath.Clean(os.TempDir())}
}
