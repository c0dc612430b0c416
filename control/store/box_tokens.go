package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// TokenByDigest reads the proxy token of a digest.
func (t *Tx) TokenByDigest(ctx context.Context, digest contract.Digest) (control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, selectTokens+` WHERE digest = $1`, digest[:])
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	return k, explain("proxy token by its digest", err)
}

// EndToken notes when a token is revoked, unless that is earlier already, and raises its version.
// The caller announces it, and sees to it that it is revoked then.
func (t *Tx) EndToken(ctx context.Context, id string, at time.Time) (control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE proxy_tokens SET ends_at = least(ends_at, $2), version = version + 1, updated_at = now() WHERE id = $1 RETURNING `+tokenColumns, id, at)
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	return k, explain("end proxy token "+id, err)
}

// UnpublishedChanges lists the changes of a token's grant that are not published, oldest first.
func (t *Tx) UnpublishedChanges(ctx context.Context, digest contract.Digest) ([]int64, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT id FROM config_changes WHERE digest = $1 AND published_at IS NULL AND failed_at IS NULL ORDER BY id`, digest[:])
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return ids, explain("changes that are not published", err)
}
