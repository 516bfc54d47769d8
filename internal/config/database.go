package config

import (
	"net"
	"net/url"
	"path"
	"strconv"
)

// Postgres reports whether the store is PostgreSQL.
func (d Database) Postgres() bool {
	return d.Driver == "postgres" || d.Driver == "" && d.given() != ""
}

// given names the key that says where PostgreSQL is.
func (d Database) given() string {
	switch {
	case d.Host != "":
		return "host"
	case d.DSN != "":
		return "dsn"
	}
	return ""
}

// ConnString is the connection string of PostgreSQL: the dsn as it is, or one made of the other keys.
func (d Database) ConnString() string {
	if d.DSN != "" {
		return d.DSN
	}
	query := url.Values{}
	u := url.URL{Scheme: "postgres", Path: "/" + d.DBName}
	if d.User != "" {
		u.User = url.User(d.User)
		if d.Password != "" {
			u.User = url.UserPassword(d.User, d.Password)
		}
	}
	port := strconv.Itoa(d.Port)
	local := path.IsAbs(d.Host) || IsLoopback(net.JoinHostPort(d.Host, port))
	if path.IsAbs(d.Host) {
		query.Set("host", d.Host)
		query.Set("port", port)
	} else {
		u.Host = net.JoinHostPort(d.Host, port)
	}
	switch {
	case d.SSLMode != "":
		query.Set("sslmode", d.SSLMode)
	case local:
		query.Set("sslmode", "disable")
	default:
		query.Set("sslmode", "require")
	}
	u.RawQuery = query.Encode()
	return u.String()
}
