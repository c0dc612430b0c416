# Whether limits hold and every token is billed once: the quota, the journals, the ledger, the feed.
p: {
  title = "Quota and ledger";
  panels = [
    (p.stat "Epoch" "none" "max(control_quota_epoch)")
    (p.stat "Epoch open" "short" "max(control_quota_epoch_open)")
    (p.stat "Replicas" "short" "max(control_quota_registered_replicas)")
    (p.stat "Undeclared" "short" "max(control_quota_undeclared_replicas)")
    (p.stat "Silent" "short" "max(control_quota_silent_replicas)")
    (p.stat "Dead letters, 24 h" "short" "sum(increase(billing_ledger_events_total{result=\"parked\"}[24h]))")
    (p.timeseries "Leased tokens" "short" [{ expr = "sum by (state) (token_proxy_lease_tokens)"; legend = p.by "state"; }])
    (p.timeseries "Would be lost with the pods' journals" "short" [
      { expr = "sum(token_proxy_usage_events_unacknowledged)"; legend = "events that Postgres does not have"; }
      { expr = "sum(token_proxy_journal_open)"; legend = "open requests"; }
      { expr = "sum(token_proxy_usage_events_queued)"; legend = "events that Redis does not have"; }
    ])
    (p.timeseries "Journal" "percentunit" [{ expr = "token_proxy_journal_used_bytes / token_proxy_journal_bytes"; legend = p.by "pod"; }])
    (p.timeseries "Settlements that wait" "short" [{ expr = "sum(token_proxy_settlements_pending)"; legend = "events"; }])
    (p.timeseries "Ledger: events" "short" [{ expr = "sum by (result) (rate(billing_ledger_events_total[$__rate_interval]))"; legend = p.by "result"; }])
    (p.timeseries "Ledger: lag and backlog" "short" [
      { expr = "max(billing_ledger_lag_seconds)"; legend = "lag, seconds"; }
      { expr = "max(billing_ledger_stream_entries)"; legend = "entries in the stream"; }
    ])
    (p.quantiles "Ledger: from Redis to Postgres" "billing_ledger_delay_seconds" "")
    (p.timeseries "Ledger: failed attempts" "short" [{ expr = "sum by (side) (increase(billing_ledger_retries_total[$__rate_interval]))"; legend = p.by "side"; }])
    (p.timeseries "Feed: age at the proxies" "s" [{ expr = "token_proxy_feed_age_seconds"; legend = p.by "pod"; }])
    (p.timeseries "Feed: changes that wait" "short" [
      { expr = "max(control_outbox_pending_changes)"; legend = "pending"; }
      { expr = "max(control_outbox_oldest_seconds)"; legend = "the oldest, seconds"; }
      { expr = "max(control_outbox_failed_changes)"; legend = "set aside"; }
    ])
    (p.timeseries "Redis keeps what it is given" "short" [
      { expr = "max(control_redis_unsafe or token_proxy_redis_unsafe)"; legend = "unsafe"; }
      { expr = "max(control_redis_evicted_keys)"; legend = "evicted keys"; }
      { expr = "min(redis_aof_last_write_status)"; legend = "append-only file written"; }
    ])
    (p.timeseries "Tokens that were not billed" "short" [{ expr = "sum(increase(token_proxy_unbilled_tokens_total[$__rate_interval]))"; legend = "tokens"; }])
    (p.timeseries "Stripe's inbox" "short" [
      { expr = "max(billing_stripe_inbox_events)"; legend = "waiting"; }
      { expr = "max(billing_stripe_inbox_failing)"; legend = "failing"; }
      { expr = "max(billing_stripe_inbox_oldest_seconds)"; legend = "the oldest, seconds"; }
    ])
    (p.timeseries "Reports to Stripe" "short" [
      { expr = "max(billing_stripe_reports_waiting)"; legend = "waiting"; }
      { expr = "max(billing_stripe_reports_failing)"; legend = "failing"; }
      { expr = "max(billing_stripe_reports_oldest_seconds)"; legend = "the oldest, seconds"; }
    ])
    (p.timeseries "Mails" "short" [{ expr = "sum by (result) (increase(billing_mails_total[$__rate_interval]))"; legend = p.by "result"; }])
  ];
}
