package redisclient

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Parse reads a URL in one of Forms. Its errors quote nothing that may be part of a
// password, also where the URL is so wrong that this cannot be told for sure.
func Parse(rawURL string) (*Target, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	if !found {
		return nil, errors.New("not the URL of a Redis: it must be like " + Forms)
	}
	p, err := split(rest)
	if err != nil {
		return nil, err
	}
	kind, tls := strings.ToLower(scheme), "redis"
	if strings.HasPrefix(kind, "rediss") {
		tls = "rediss"
	}
	switch kind {
	case "redis", "rediss", "unix":
		return parseSingle(rawURL, p)
	case "redis-cluster", "rediss-cluster":
		return parseCluster(tls, p)
	case "redis-sentinel", "rediss-sentinel":
		return parseSentinel(tls, p)
	}
	return nil, errors.New("the URL of a Redis must be like " + Forms)
}

// parts are the parts of a URL behind its scheme.
type parts struct {
	user    string // as written; "" without any
	hosts   string // a list
	path    string
	options url.Values
}

var (
	errAmbiguous = errors.New("an @ stands where none may be: hosts follow the only @ of the URL, and in a password write @ / ? # % as %40 %2F %3F %23 %25")
	errMalformed = errors.New("malformed URL: in a password, write @ / ? # % as %40 %2F %3F %23 %25")
)

// split divides a URL. It refuses those in which a password may have been taken for
// something else, so that all but user is known to be no secret.
func split(rest string) (parts, error) {
	var p parts
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if strings.Contains(tail, "@") {
		return p, errAmbiguous
	}
	p.hosts = authority
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		p.user, p.hosts = authority[:i], authority[i+1:]
	}
	tail, _, _ = strings.Cut(tail, "#")
	path, query, _ := strings.Cut(tail, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		return p, errMalformed
	}
	p.path, p.options = strings.Trim(path, "/"), options
	return p, nil
}

func parseSingle(rawURL string, p parts) (*Target, error) {
	if strings.Contains(p.hosts, ",") {
		return nil, errors.New("several hosts: the URL of a Cluster begins with redis-cluster://, that of Sentinels with redis-sentinel://")
	}
	if p.hosts != "" {
		if _, err := withPort(p.hosts, "6379"); err != nil {
			return nil, fmt.Errorf("the host %w", err)
		}
	}
	o, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, tell(err)
	}
	return &Target{single: o}, nil
}

func parseCluster(scheme string, p parts) (*Target, error) {
	if p.path != "" && p.path != "0" {
		return nil, errors.New("a Redis Cluster has no databases but 0")
	}
	if err := p.masters(); err != nil {
		return nil, err
	}
	u, err := p.standard(scheme, "6379")
	if err != nil {
		return nil, err
	}
	o, err := redis.ParseClusterURL(u)
	if err != nil {
		return nil, tell(err)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // each server answers under its own name
	}
	return &Target{cluster: o}, nil
}

// parseSentinel gives go-redis the Sentinels' user where it wants it, in front of the
// hosts, and that of Redis itself as an option.
func parseSentinel(scheme string, p parts) (*Target, error) {
	if !p.options.Has("master") {
		return nil, errors.New("the URL of Sentinels must name the master, as ?master=name")
	}
	if err := p.masters("username", "password"); err != nil {
		return nil, err
	}
	p.options.Set("master_name", p.options.Get("master"))
	sentinels := url.UserPassword(p.options.Get("sentinel_username"), p.options.Get("sentinel_password"))
	for _, used := range []string{"master", "sentinel_username", "sentinel_password"} {
		p.options.Del(used)
	}
	if p.options.Get("master_name") == "" {
		return nil, errors.New("the name in ?master= is empty")
	}
	if p.user != "" {
		u, err := url.Parse("redis://" + p.user + "@host")
		if err != nil {
			return nil, errMalformed
		}
		password, _ := u.User.Password()
		p.options.Set("username", u.User.Username())
		p.options.Set("password", password)
	}
	p.user = ""
	if s := sentinels.String(); s != ":" {
		p.user = s
	}
	u, err := p.standard(scheme, "26379")
	if err != nil {
		return nil, err
	}
	o, err := redis.ParseFailoverURL(u)
	if err != nil {
		return nil, tell(err)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = ""
	}
	return &Target{sentinel: o}, nil
}

// masters refuses options by which commands would go to replicas, hosts and users that
// stand in the wrong place, and more.
func (p *parts) masters(more ...string) error {
	if strings.Contains(p.user, "@") { // perhaps a user for each host
		return errAmbiguous
	}
	for _, name := range append(more, "addr", "read_only", "replica_only", "route_by_latency", "route_by_latency_tolerance", "route_randomly") {
		if p.options.Has(name) {
			return fmt.Errorf("the option %s cannot be used here", name)
		}
	}
	return nil
}

// standard writes p as go-redis understands it: the first host in its place, the others
// as options.
func (p *parts) standard(scheme, port string) (string, error) {
	var hosts []string
	for i, host := range strings.Split(p.hosts, ",") {
		address, err := withPort(host, port)
		if err != nil {
			return "", fmt.Errorf("host %d of the list %w", i+1, err)
		}
		hosts = append(hosts, address)
	}
	options := url.Values{"addr": hosts[1:]}
	for name, values := range p.options {
		options[name] = values
	}
	user := ""
	if p.user != "" {
		user = p.user + "@"
	}
	return scheme + "://" + user + hosts[0] + "/" + p.path + "?" + options.Encode(), nil
}

// withPort completes an address. Its errors do not quote it: without an @ in the URL it
// may be a user and a password.
func withPort(address, port string) (string, error) {
	if address == "" {
		return "", errors.New("is missing")
	}
	host, given, err := net.SplitHostPort(address)
	if err != nil {
		host, given, err = net.SplitHostPort(address + ":" + port)
	}
	if err != nil || host == "" || strings.ContainsAny(host, "[]% \t") {
		return "", errors.New("is not like host:port")
	}
	if n, err := strconv.ParseUint(given, 10, 16); err != nil || n == 0 {
		return "", errors.New("has no port from 1 to 65535")
	}
	return net.JoinHostPort(host, given), nil
}

// tell returns an error of go-redis without what may be secret. Those of package url
// quote the URL; those of go-redis quote what split has found to be no secret.
func tell(err error) error {
	if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
		return errMalformed
	}
	return errors.New(strings.TrimPrefix(err.Error(), "redis: "))
}
