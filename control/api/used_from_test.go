package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// The list says what customers have used of their limits, has those who have used a part of it on
// request, and is still in order and page by page then.
func TestCustomersByWhatTheyUsed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.operator(control.RoleSupport)
	var ids []string
	for _, used := range []int64{0, 899_999, 900_000, 1_000_001, 950_000} {
		id, _ := e.customer() // of a tier with a million tokens
		ids = append(ids, id)
		e.pg.Query(fmt.Sprintf("UPDATE usage_periods SET settled_tokens = %d WHERE customer_id = '%s'", used, id))
	}
	e.pg.Query("DELETE FROM usage_periods WHERE customer_id = '" + ids[0] + "'")
	for query, want := range map[string]string{
		"":                            ids[0] + " -, " + ids[1] + " 89 899999, " + ids[2] + " 90 900000, " + ids[3] + " 100 1000001, " + ids[4] + " 95 950000",
		"used_from=0":                 ids[1] + " 89 899999, " + ids[2] + " 90 900000, " + ids[3] + " 100 1000001, " + ids[4] + " 95 950000",
		"used_from=90":                ids[2] + " 90 900000, " + ids[3] + " 100 1000001, " + ids[4] + " 95 950000",
		"used_from=90&status=active":  ids[2] + " 90 900000, " + ids[3] + " 100 1000001, " + ids[4] + " 95 950000",
		"used_from=90&status=pending": "",
		"used_from=95&search=ada":     ids[3] + " 100 1000001, " + ids[4] + " 95 950000",
		"used_from=95&search=nobody":  "",
		"used_from=1000":              "",
	} {
		var said []string
		for next, pages := "", 0; ; pages++ {
			var l api.List[control.ListedCustomer]
			c.want(http.StatusOK, "GET", "/v1/customers?limit=2&cursor="+next+"&"+query, nil).into(t, &l)
			for _, v := range l.Items {
				text := v.ID + " -"
				if p := v.Period; p != nil {
					text = fmt.Sprintf("%s %d %d", v.ID, p.Percent, p.Used)
					if p.Limit != 1_000_000 {
						t.Errorf("%s: a limit of %d", v.ID, p.Limit)
					}
				}
				said = append(said, text)
			}
			if next = l.Next; next == "" {
				break
			}
			if len(l.Items) != 2 || pages > len(ids) {
				t.Fatalf("%s: a page of %d has one behind it, page %d", query, len(l.Items), pages)
			}
		}
		if got := strings.Join(said, ", "); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", query, got, want)
		}
	}
	// Without a period there is neither a 0 nor a null to be taken for one.
	if a := c.want(http.StatusOK, "GET", "/v1/customers?limit=1", nil); strings.Contains(string(a.body), "period") {
		t.Errorf("%s", a.body)
	}
	if a := c.do("GET", "/v1/customers?used_from=90%25", nil); a.problem() != "invalid" || !strings.Contains(string(a.body), "used_from: it must be a whole number of percent in 0…1000") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
