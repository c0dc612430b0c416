package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ratesWithin is how many events are waited for until there are rates: a proxy has none before it was heard
// of twice, which is two events at most.
const ratesWithin = 3

func (a *app) trafficCommand() *cobra.Command {
	var follow bool
	cmd := calls("streamTraffic", &cobra.Command{
		Use:   "traffic",
		Short: "Show what passes through the proxies now",
		Long: `traffic prints what passes through the proxies, as they announce it each second: requests in flight,
streams among them, and what was answered, refused and counted per second in the last seconds. With
--follow it goes on, for an hour at most. Proxies that announce nothing are named: silent ones show no
sign of life either, untold ones are ending or of an older build.`,
		Example: `  openclawctl traffic
  openclawctl traffic --follow --output json | jq .in_flight`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				events, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: client.Path("v1", "traffic"), What: "the traffic"})
				if err != nil {
					return err
				}
				defer events.Close()
				err = a.showTraffic(cmd, events, follow)
				if ctx.Err() != nil {
					return nil // whoever follows has ended it
				}
				return err
			})
		},
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each change")
	return cmd
}

// showTraffic prints the traffic that server-sent events tell of: once, or until they end.
func (a *app) showTraffic(cmd *cobra.Command, events io.Reader, follow bool) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	event, seen := "", 0
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case field == "event":
			event = value
		case field == "data" && event == "away":
			away := errors.New("Redis, where proxies announce what passes through them, is away")
			if !follow {
				return away
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "openclawctl: %v\n", away)
		case field == "data" && event == "traffic":
			var t api.Traffic
			if err := json.Unmarshal([]byte(value), &t); err != nil {
				return fmt.Errorf("read the traffic: %w", err)
			}
			seen++
			if !follow && t.Rates == nil && len(t.Proxies) > 0 && seen < ratesWithin {
				continue
			}
			tables := []table{trafficTable(t)}
			if unheard := unheardTable(t); len(unheard.rows) > 0 {
				tables = append(tables, unheard)
			}
			if err := a.show(cmd, t, tables...); err != nil || !follow {
				return err
			}
			if a.output == "table" {
				fmt.Fprintln(cmd.OutOrStdout())
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the traffic broke off: %w", err)
	}
	if !follow {
		return errors.New("the traffic broke off before it could be shown: try again")
	}
	return nil
}

// trafficTable has a row for each proxy, and one for all of them.
func trafficTable(t api.Traffic) table {
	out := table{head: []string{"PROXY", "IN FLIGHT", "STREAMS", "ANSWERED/S", "TOKENS/S", "REFUSED/S"}}
	row := func(name string, inFlight, streams int64, r *api.TrafficRates) {
		answered, tokens, refused := "-", "-", "-"
		if r != nil {
			answered, tokens, refused = perSecond(r.Answered), perSecond(r.Tokens), refusedPerSecond(r.Refused)
		}
		out.rows = append(out.rows, []string{name, number(inFlight), number(streams), answered, tokens, refused})
	}
	for _, p := range t.Proxies {
		row(p.ID, p.InFlight, p.Streams, p.Rates)
	}
	row("all", t.InFlight, t.Streams, t.Rates)
	return out
}

// unheardTable names the proxies of which nothing is in the sums.
func unheardTable(t api.Traffic) table {
	out := table{head: []string{"NOT COUNTED", "WHY"}}
	for _, id := range t.Silent {
		out.rows = append(out.rows, []string{id, "silent"})
	}
	for _, id := range t.Untold {
		out.rows = append(out.rows, []string{id, "untold"})
	}
	return out
}

func perSecond(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }

// refusedPerSecond is the sum, and what it is of.
func refusedPerSecond(classes map[contract.RefusalClass]float64) string {
	sum, parts := 0.0, []string(nil)
	for class, n := range classes {
		sum += n
		parts = append(parts, string(class)+" "+perSecond(n))
	}
	if len(parts) == 0 {
		return perSecond(0)
	}
	slices.Sort(parts)
	return perSecond(sum) + " (" + strings.Join(parts, ", ") + ")"
}
