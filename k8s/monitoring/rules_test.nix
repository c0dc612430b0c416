# The alert rules, played: each once with series that make it fire, and once with series that are as they
# should be. promtool runs it (rules_test.yaml); a minute passes between two values.
{ lib, openclaw }:
let
  rules = lib.concatMap (g: g.rules) (import ./rules.nix { inherit lib openclaw; }).groups;

  # Values over half an hour.
  steady = v: "${toString v}+0x30";
  growing = perMinute: "0+${toString perMinute}x30";
  # A counter that begins to count in the 16th minute.
  jumps = by: "0+0x15 ${toString by}+0x15";
  series = name: values: { series = name; inherit values; };

  # What a rule is expected to say, with the labels put in.
  said = alert: labels:
    let
      rule = lib.findFirst (r: r.alert == alert && (r.labels.job or null) == (if r.labels ? job then labels.job or null else null)) (throw "no rule ${alert}") rules;
      put = lib.replaceStrings (map (k: "{{ $labels.${k} }}") (lib.attrNames labels)) (lib.attrValues labels);
    in
    { exp_labels = rule.labels // labels; exp_annotations = lib.mapAttrs (_: put) rule.annotations; };

  play = alert: at: labels: input: expected: {
    name = alert;
    interval = "1m";
    input_series = input;
    alert_rule_test = [{ eval_time = at; alertname = alert; exp_alerts = if expected then [ (said alert labels) ] else [ ]; }];
  };

  # at: when; labels: those of the alert; wrong and right: the series.
  both = alert: at: labels: wrong: right: [ (play alert at labels wrong true) (play alert at { } right false) ];
  # A gauge without labels that matter.
  gauge = alert: at: name: wrong: right: both alert at { } [ (series name (steady wrong)) ] [ (series name (steady right)) ];
  # A counter that jumps, and one that does not.
  counter = alert: name: both alert "17m" { } [ (series name (jumps 5)) ] [ (series name (steady 5)) ];

  up = job: v: series "up{job=\"${job}\", pod=\"${job}-0\", namespace=\"platform\"}" (steady v);
  jobs = lib.concatMap (r: lib.optional (r.labels ? job) r.labels.job) rules;
in
{
  rule_files = [ "rules.yaml" ];
  evaluation_interval = "1m";
  tests = lib.concatLists (
    map (down: both "ServiceDown" "5m" { job = down; } (map (j: up j (if j == down then 0 else 1)) jobs) (map (j: up j 1) jobs)) jobs
    ++ [
      (both "PodDown" "8m" { job = "api"; pod = "api-0"; namespace = "platform"; } [ (up "api" 0) ] [ (up "api" 1) ])
      (both "Restarting" "25m" { job = "operator"; pod = "operator-0"; namespace = "platform"; }
        [ (series "process_start_time_seconds{job=\"operator\", pod=\"operator-0\", namespace=\"platform\"}" (growing 60)) ]
        # A roll-out and one restart.
        [ (series "process_start_time_seconds{job=\"operator\", pod=\"operator-0\", namespace=\"platform\"}" (jumps 500)) (series "process_start_time_seconds{job=\"operator\", pod=\"operator-1\", namespace=\"platform\"}" (steady 100)) ])
      (both "ApiErrors" "20m" { }
        [ (series "control_api_requests_total{status=\"200\"}" (growing 90)) (series "control_api_requests_total{status=\"500\"}" (growing 10)) ]
        [ (series "control_api_requests_total{status=\"200\"}" (growing 90)) (series "control_api_requests_total{status=\"400\"}" (growing 90)) (series "control_api_requests_total{status=\"500\"}" (growing 1)) ])
      # An event stream lasts for an hour, and is not slow for that.
      (both "ApiSlow" "25m" { }
        [
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"1\"}" (growing 50))
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"5\"}" (growing 60))
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"+Inf\"}" (growing 60))
        ]
        [
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"1\"}" (growing 60))
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"5\"}" (growing 60))
          (series "control_api_request_seconds_bucket{route=\"/v1/me\", le=\"+Inf\"}" (growing 60))
          (series "control_api_request_seconds_bucket{route=\"/v1/me/events\", le=\"1\"}" (growing 0))
          (series "control_api_request_seconds_bucket{route=\"/v1/me/events\", le=\"5\"}" (growing 0))
          (series "control_api_request_seconds_bucket{route=\"/v1/me/events\", le=\"+Inf\"}" (growing 60))
          (series "control_api_request_seconds_bucket{route=\"/v1/traffic\", le=\"1\"}" (growing 0))
          (series "control_api_request_seconds_bucket{route=\"/v1/traffic\", le=\"5\"}" (growing 0))
          (series "control_api_request_seconds_bucket{route=\"/v1/traffic\", le=\"+Inf\"}" (growing 60))
        ])

      (both "UpstreamErrors" "20m" { }
        [ (series "token_proxy_outcomes_total{outcome=\"ok\"}" (growing 80)) (series "token_proxy_outcomes_total{outcome=\"upstream_error\"}" (growing 20)) (series "token_proxy_upstream_errors_total{status_code=\"500\"}" (growing 20)) ]
        [ (series "token_proxy_outcomes_total{outcome=\"ok\"}" (growing 99)) (series "token_proxy_outcomes_total{outcome=\"upstream_error\"}" (growing 1)) (series "token_proxy_upstream_errors_total{status_code=\"500\"}" (growing 1)) (series "token_proxy_upstream_errors_total{status_code=\"400\"}" (growing 30)) ])
      (both "UpstreamSlow" "25m" { }
        [ (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"4\"}" (growing 10)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"15\"}" (growing 60)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"+Inf\"}" (growing 60)) ]
        [ (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"4\"}" (growing 60)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"15\"}" (growing 60)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\", le=\"+Inf\"}" (growing 60))
          # A whole answer begins when it is complete.
          (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"false\", le=\"4\"}" (growing 0)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"false\", le=\"15\"}" (growing 60)) (series "token_proxy_upstream_ttfb_seconds_bucket{stream=\"false\", le=\"+Inf\"}" (growing 60)) ])
      (counter "UpstreamKeyRefused" "token_proxy_upstream_key_refused_total")
      (both "BreakerOpen" "5m" { upstream = "kimi"; }
        [ (series "token_proxy_upstream_breaker_open{upstream=\"kimi\"}" (steady 1)) ]
        [ (series "token_proxy_upstream_breaker_open{upstream=\"kimi\"}" (steady 0)) ])
      (both "QuotaNotReady" "5m" { pod = "a"; }
        [ (series "token_proxy_quota_ready{pod=\"a\"}" (steady 0)) (series "token_proxy_quota_ready{pod=\"b\"}" (steady 1)) ]
        [ (series "token_proxy_quota_ready{pod=\"a\"}" (steady 1)) ])
      (both "FeedSilent" "5m" { pod = "a"; }
        [ (series "token_proxy_feed_age_seconds{pod=\"a\"}" (steady 7)) (series "token_proxy_feed_age_seconds{pod=\"b\"}" (steady "0.2")) ]
        [ (series "token_proxy_feed_age_seconds{pod=\"a\"}" (steady "0.2")) ])
      (both "JournalFilling" "10m" { pod = "a"; }
        [ (series "token_proxy_journal_used_bytes{pod=\"a\"}" (steady 60)) (series "token_proxy_journal_bytes{pod=\"a\"}" (steady 100)) ]
        [ (series "token_proxy_journal_used_bytes{pod=\"a\"}" (steady 10)) (series "token_proxy_journal_bytes{pod=\"a\"}" (steady 100)) ])
      (counter "JournalRefused" "token_proxy_journal_refused_total")
      (gauge "Overloaded" "10m" "token_proxy_overload_share" "0.2" "0.01")
      (counter "UnbilledTokens" "token_proxy_unbilled_tokens_total")
      (counter "ImplausibleUsage" "token_proxy_implausible_usage_total")
      (counter "ProxyPanics" "token_proxy_panics_total")
      (both "CustomersAtLimit" "17m" { }
        [ (series "token_proxy_blocked_total{reason=\"monthly\"}" (jumps 3)) ]
        [ (series "token_proxy_blocked_total{reason=\"monthly\"}" (steady 3)) (series "token_proxy_blocked_total{reason=\"rate\"}" (growing 9)) ])

      (gauge "RedisMayLose" "1m" "control_redis_unsafe" 1 0)
      (gauge "RedisMayLose" "1m" "token_proxy_redis_unsafe" 1 0)
      (gauge "RedisMayLose" "1m" "control_redis_evicted_keys" 12 0)
      (gauge "RedisDown" "5m" "redis_up" 0 1)
      (both "RedisFilling" "15m" { }
        [ (series "redis_memory_used_bytes" (steady 900)) (series "redis_memory_max_bytes" (steady 1000)) ]
        [ (series "redis_memory_used_bytes" (steady 500)) (series "redis_memory_max_bytes" (steady 1000)) ])
      # One without a limit says that it is 0.
      [ (play "RedisFilling" "15m" { } [ (series "redis_memory_used_bytes" (steady 900)) (series "redis_memory_max_bytes" (steady 0)) ] false) ]
      (gauge "RedisCannotWrite" "5m" "redis_aof_last_write_status" 0 1)
      (both "PostgresDown" "5m" { job = "api"; pod = "a"; }
        [ (series "control_postgres_up{job=\"api\", pod=\"a\"}" (steady 0)) (series "control_postgres_up{job=\"api\", pod=\"b\"}" (steady 1)) ]
        [ (series "control_postgres_up{job=\"api\", pod=\"a\"}" (steady 1)) (series "control_postgres_up{job=\"api\", pod=\"b\"}" (steady 1)) ])
      # Of two billing-workers one leads.
      (both "QuotaKeptByNobody" "5m" { }
        [ (series "control_quota_leader{pod=\"a\"}" (steady 0)) (series "control_quota_leader{pod=\"b\"}" (steady 0)) ]
        [ (series "control_quota_leader{pod=\"a\"}" (steady 0)) (series "control_quota_leader{pod=\"b\"}" (steady 1)) ])
      (both "QuotaEpochClosed" "5m" { }
        [ (series "control_quota_epoch_open{pod=\"a\"}" (steady 0)) (series "control_quota_epoch_open{pod=\"b\"}" (steady 0)) ]
        [ (series "control_quota_epoch_open{pod=\"a\"}" (steady 0)) (series "control_quota_epoch_open{pod=\"b\"}" (steady 1)) ])
      (gauge "ReplicaSilent" "15m" "control_quota_silent_replicas" 1 0)
      (gauge "LedgerLate" "5m" "billing_ledger_lag_seconds" 90 1)
      (gauge "LedgerBacklog" "15m" "billing_ledger_stream_entries" 20000 5)
      (both "DeadLetters" "17m" { }
        [ (series "billing_ledger_events_total{result=\"parked\"}" (jumps 1)) ]
        [ (series "billing_ledger_events_total{result=\"parked\"}" (steady 1)) (series "billing_ledger_events_total{result=\"inserted\"}" (growing 60)) ])
      (gauge "ChangesUnpublished" "5m" "control_outbox_oldest_seconds" 60 1)
      (gauge "ChangesSetAside" "1m" "control_outbox_failed_changes" 1 0)
      (gauge "TierFileRefused" "5m" "control_tier_file_refused" 1 0)

      (gauge "StripeEventsWait" "5m" "billing_stripe_inbox_oldest_seconds" 1000 20)
      (gauge "StripeEventsFail" "20m" "billing_stripe_inbox_failing" 1 0)
      (gauge "StripeReportsWait" "5m" "billing_stripe_reports_oldest_seconds" 22000 21000)
      (gauge "StripeReportsFail" "20m" "billing_stripe_reports_failing" 1 0)
      (both "StripeWebhooksRefused" "17m" { }
        [ (series "billing_stripe_webhooks_total{result=\"forged\"}" (jumps 1)) ]
        [ (series "billing_stripe_webhooks_total{result=\"forged\"}" (steady 1)) (series "billing_stripe_webhooks_total{result=\"kept\"}" (growing 5)) ])
      (counter "SecondSubscriptions" "billing_stripe_second_subscriptions_total")
      (both "MailsFail" "17m" { }
        [ (series "billing_mails_total{result=\"uncertain\"}" (jumps 1)) ]
        [ (series "billing_mails_total{result=\"sent\"}" (growing 5)) (series "billing_mails_total{result=\"retried\"}" (growing 1)) ])

      (gauge "OperatorPolicyMissing" "5m" "operator_policy_in_force" 0 1)
      (both "BoxesKeptByNobody" "10m" { }
        [ (series "operator_leader{pod=\"a\"}" (steady 0)) (series "operator_leader{pod=\"b\"}" (steady 0)) ]
        [ (series "operator_leader{pod=\"a\"}" (steady 0)) (series "operator_leader{pod=\"b\"}" (steady 1)) ])
      # The time of these tests begins at 0.
      (both "SweepOld" "20m" { }
        [ (series "operator_last_sweep_timestamp_seconds{pod=\"a\"}" (steady 60)) (series "operator_last_sweep_timestamp_seconds{pod=\"b\"}" (steady 0)) ]
        [ (series "operator_last_sweep_timestamp_seconds{pod=\"a\"}" (growing 60)) (series "operator_last_sweep_timestamp_seconds{pod=\"b\"}" (steady 0)) ])
      # Nobody leads, as for minutes after a node was lost.
      [ (play "SweepOld" "20m" { } [ (series "operator_last_sweep_timestamp_seconds{pod=\"b\"}" (steady 0)) ] false) ]
      (gauge "BoxesUnsettled" "5m" "operator_oldest_unsettled_seconds" 1600 20)
      (both "BoxesFailed" "10m" { }
        [ (series "operator_boxes{state=\"failed\"}" (steady 1)) ]
        [ (series "operator_boxes{state=\"failed\"}" (steady 0)) (series "operator_boxes{state=\"active\"}" (steady 40)) ])
      (both "BoxesUnhealthy" "15m" { }
        [ (series "operator_boxes{state=\"unhealthy\"}" (steady 1)) ]
        [ (series "operator_boxes{state=\"unhealthy\"}" (steady 0)) (series "operator_boxes{state=\"active\"}" (steady 40)) ])
      (both "BoxesFailOften" "17m" { cause = "image"; }
        [ (series "operator_box_failures_total{cause=\"image\"}" (jumps 9)) (series "operator_box_failures_total{cause=\"quota\"}" (jumps 1)) ]
        [ (series "operator_box_failures_total{cause=\"image\"}" (jumps 2)) ])
      (both "RollOutStands" "70m" { }
        [ (series "operator_rolling_gateways" "3+0x80") (series "operator_rolled_gateways_total" "7+0x80") ]
        [ (series "operator_rolling_gateways" "3+0x20 0+0x60") (series "operator_rolled_gateways_total" "7+0x80") ])
      # It goes on.
      [ (play "RollOutStands" "70m" { } [ (series "operator_rolling_gateways" "10+0x80") (series "operator_rolled_gateways_total" "0+5x80") ] false) ]
      (gauge "OrphanNamespaces" "15m" "operator_orphan_namespaces" 1 0)
      (counter "PodsForced" "operator_forced_pods_total")
    ]
  );
}
