// Package migrations holds the schema of the store, as goose migrations for each database.
//
// Both directories describe the same tables and have the same version numbers. Times are microseconds since 1970 in
// UTC; 0 means none.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Postgres gives the migrations for PostgreSQL.
func Postgres() fs.FS { return sub("postgres") }

// SQLite gives the migrations for SQLite.
func SQLite() fs.FS { return sub("sqlite") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the directory is compiled in
	}
	return f
}
