package mail

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// withLink gives a mail of a kind that has one its link with a new secret, of which only the
// digest is kept. An attempt that fails leaves a secret behind that nobody has, and the next
// one replaces it.
//
// The secret stands behind a #: browsers do not send it to any server, and so it is in no
// access log and in no Referer.
func (s *Sender) withLink(ctx context.Context, m control.Mail) (control.Mail, error) {
	valid := control.MailTokenFor(m.Kind)
	if valid == 0 {
		return m, nil
	}
	secret, token := control.NewMailToken(m.CustomerID, m.Kind, m.To, time.Now().UTC())
	if err := s.store.PutMailToken(ctx, token); err != nil {
		return m, err
	}
	params := maps.Clone(m.Params)
	if params == nil {
		params = map[string]any{}
	}
	params["hours"] = int64(valid / time.Hour)
	params["link"] = strings.TrimSuffix(s.o.Dashboard, "/") + "/" + strings.ReplaceAll(m.Kind, "_", "-") + "#token=" + secret
	m.Params = params
	return m, nil
}
