package store

import "context"

// WriteShared runs statements as work that may share a transaction, and then fails if it is told to.
func (s *Store) WriteShared(ctx context.Context, fail error, statements ...string) error {
	return s.writeShared(ctx, "test", func(ctx context.Context, tx conn) error {
		for _, statement := range statements {
			if _, err := tx.exec(ctx, statement); err != nil {
				return err
			}
		}
		return fail
	})
}

// CountRows counts the rows of a table.
func (s *Store) CountRows(ctx context.Context, table string) (n int, err error) {
	err = s.read().get(ctx, &n, `SELECT COUNT(*) FROM `+table)
	return n, err
}
