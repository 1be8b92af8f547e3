// Package crdb stands in for the one that Dex names for CockroachDB, whose version of that time is no longer available.
// Dex on PostgreSQL never calls it.
package crdb

import (
	"database/sql"
	"errors"
)

// ExecuteTx refuses.
func ExecuteTx(*sql.DB, func(*sql.Tx) error) error {
	return errors.New("this build has no CockroachDB")
}
