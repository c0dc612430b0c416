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

// TokensOfBox lists the proxy tokens of a customer's box, oldest first, with those that are revoked.
func (t *Tx) TokensOfBox(ctx context.Context, customer, box string) ([]control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, selectTokens+` WHERE customer_id = $1 AND box_id = $2 ORDER BY created_at, id`, customer, box)
	list, err := pgx.CollectRows(rows, scanToken)
	return list, explain("proxy tokens of box "+box, err)
}

// UnpublishedChanges lists the changes of the grants of a customer's tokens that are not published,
// oldest first. The tokens are named by their digests.
func (t *Tx) UnpublishedChanges(ctx context.Context, customer string, digests ...contract.Digest) ([]int64, error) {
	if len(digests) == 0 {
		return nil, nil
	}
	list := make([][]byte, len(digests))
	for i := range digests {
		list[i] = digests[i][:]
	}
	rows, _ := t.tx.Query(ctx, `
		SELECT id FROM config_changes WHERE customer_id = $1 AND digest = ANY($2) AND published_at IS NULL AND failed_at IS NULL ORDER BY id`, customer, list)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return ids, explain("changes that are not published", err)
}
