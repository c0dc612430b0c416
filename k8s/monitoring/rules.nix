# The alert rules, as Prometheus reads them. Each says what is wrong, and what to do; each is played once
# firing and once silent in rules_test.yaml, and every metric in it must exist in our code or in that of
# the two exporters (test/manifests).
{ lib, openclaw }:
let
  # "critical" wakes somebody up: customers are hurt now, or money is.
  rule = severity: alert: expr: wait: summary: action: {
    inherit alert expr;
    for = wait;
    labels = { inherit severity; };
    annotations = { inherit summary action; };
  };
  critical = rule "critical";
  warning = rule "warning";

  grace = "${toString openclaw.tokenProxy.graceSeconds} s";
  # What customers notice while a service is away, and what to look at once it is known how its pods are.
  services = [
    {
      job = "token-proxy";
      means = "no agent gets an answer.";
      look = "Who does not start says why in its log: its configuration, or the nodes are full.";
    }
    {
      job = "api";
      means = "nobody can sign in, buy or change anything, and Stripe keeps its events. Agents go on.";
      look = "At its start it waits for Postgres.";
    }
    {
      job = "operator";
      means = "who pays gets no box, and no box is changed or repaired. Agents that run go on.";
      look = "At its start it waits for Postgres; then the API server of Kubernetes.";
    }
    {
      job = "billing-worker";
      means = "payments, new periods, changes that were not published and mails wait. Agents go on, until Redis or a journal is full of usage.";
      look = "At its start it waits for Redis and Postgres. Meanwhile look at redis_memory_used_bytes.";
    }
    {
      job = "redis";
      means = "after ${grace} agents get 503, unless it is its exporter alone that is away.";
      look = "QuotaNotReady tells whether it is Redis itself: then as RedisDown.";
    }
  ]
  ++ lib.optional openclaw.onboardingAgent.enable {
    job = "onboarding-agent";
    means = "who wants to become a customer gets no answer. Those who are customers already notice nothing.";
    look = "At its start it waits for Postgres, and it refuses a Redis that may lose data. Without token-proxy it goes on, in prepared sentences.";
  }
  ++ lib.optional openclaw.web.enable {
    job = "web";
    means = "the pages of customers do not open. Agents go on, and so does openclawctl.";
    look = "It needs nothing but the api.";
  };
in
{
  groups = [
    {
      name = "services";
      rules = map
        ({ job, means, look }: critical "ServiceDown" "absent(up{job=\"${job}\"} == 1)" "2m"
          "No pod of ${job} answers: ${means}"
          "kubectl -n platform get pods -l app.kubernetes.io/name=${job}; then their events and logs. ${look}"
          // { labels = { severity = "critical"; inherit job; }; })
        services
      ++ [
        (warning "PodDown" "up == 0" "5m"
          "{{ $labels.job }}: pod {{ $labels.pod }} does not answer Prometheus."
          "kubectl -n {{ $labels.namespace }} describe pod {{ $labels.pod }}.")
        (critical "Restarting" "changes(process_start_time_seconds[30m]) > 3" "0m"
          "{{ $labels.job }}: pod {{ $labels.pod }} starts again and again."
          "kubectl -n {{ $labels.namespace }} logs {{ $labels.pod }} --previous: its last lines say why it ended.")
        (warning "ApiErrors" "sum(rate(control_api_requests_total{status=~\"5..\"}[5m])) / sum(rate(control_api_requests_total[5m])) > 0.05" "5m"
          "The api answers more than one request in twenty with an error of its own."
          "Its log names them. 503 with Postgres away is expected: look at Postgres first.")
        (warning "ApiSlow" "histogram_quantile(0.99, sum by (le) (rate(control_api_request_seconds_bucket{route!~\".*/(events|export|logs|traffic)\"}[5m]))) > 1" "10m"
          "One request of the api in a hundred takes more than a second."
          "By route in the dashboard Services; then Postgres' slow queries.")
      ];
    }
    {
      name = "token-proxy";
      rules = [
        (critical "UpstreamErrors" "sum(rate(token_proxy_upstream_errors_total{status_code=~\"401|402|403|408|429|5..|connection|timeout|cut|error\"}[5m])) / sum(rate(token_proxy_outcomes_total[5m])) > 0.1" "5m"
          "More than one request in ten fails at Kimi."
          "By status in the dashboard token-proxy. 429 is our account's limit there; connection and timeout are the way to it.")
        (warning "UpstreamSlow" "histogram_quantile(0.99, sum by (le) (rate(token_proxy_upstream_ttfb_seconds_bucket{stream=\"true\"}[5m]))) > 5" "10m"
          "One stream of Kimi's in a hundred begins after more than five seconds."
          "Compare with Kimi's own status; added latency of ours is another panel.")
        (critical "UpstreamKeyRefused" "sum(increase(token_proxy_upstream_key_refused_total[10m])) > 0" "0m"
          "Kimi refuses our key or account: all customers are without answers, or soon are."
          "Look at the account's balance; then replace kimi_api_key in platform-secrets and restart token-proxy.")
        (critical "BreakerOpen" "max by (upstream) (max_over_time(token_proxy_upstream_breaker_open[1m])) > 0" "2m"
          "Requests are kept from upstream {{ $labels.upstream }}, which failed many times in a row."
          "Nothing here: ten seconds after each failure the next request tries it again. Tell customers if it lasts.")
        (critical "QuotaNotReady" "min by (pod) (token_proxy_quota_ready) == 0" "1m"
          "token-proxy {{ $labels.pod }} cannot reserve tokens, and answers 503."
          "Its /readyz says why: Redis out of reach, not registered, or declared lost.")
        (critical "FeedSilent" "max by (pod) (token_proxy_feed_age_seconds) > 5" "1m"
          "token-proxy {{ $labels.pod }} does not hear of changes; beyond ${grace} it refuses requests."
          "Redis, or the network between.")
        (warning "JournalFilling" "max by (pod) (token_proxy_journal_used_bytes / token_proxy_journal_bytes) > 0.5" "5m"
          "The journal of token-proxy {{ $labels.pod }} is half full of usage that Postgres does not have."
          "The billing-worker, then Postgres. When it is full, new requests get 503.")
        (critical "JournalRefused" "sum(increase(token_proxy_journal_refused_total[5m])) > 0" "0m"
          "Requests were refused because a journal had no room."
          "As JournalFilling; or more requests in flight than journalSlots.")
        (warning "Overloaded" "max(token_proxy_overload_share) > 0.05" "5m"
          "token-proxy refuses some requests because it lacks processor time."
          "More pods (tokenProxy.most), or more nodes.")
        (warning "UnbilledTokens" "sum(increase(token_proxy_unbilled_tokens_total[1h])) > 0" "0m"
          "Kimi counted more tokens than were reserved: they are not billed."
          "The log has the request ids. The bounds in limits.* of token-proxy are wrong for what was asked.")
        (warning "ImplausibleUsage" "sum(increase(token_proxy_implausible_usage_total[1h])) > 0" "0m"
          "An answer of Kimi's had usage that cannot be."
          "The log has the request id; the row in Postgres has basis estimated.")
        (warning "ProxyPanics" "sum(increase(token_proxy_panics_total[15m])) > 0" "0m"
          "token-proxy caught a panic: a bug, which cost one request."
          "The log has the stack.")
        (warning "CustomersAtLimit" "sum(increase(token_proxy_blocked_total{reason=\"monthly\"}[1h])) > 0" "0m"
          "Requests were refused because a monthly limit is reached."
          "openclawctl customer list --used-from 90 tells who is at it, or near. Nothing is wrong; somebody may want to sell.")
      ];
    }
    {
      name = "quota and ledger";
      rules = [
        (critical "RedisMayLose" "max(control_redis_unsafe or token_proxy_redis_unsafe) > 0 or max(control_redis_evicted_keys) > 0" "0m"
          "Redis evicts keys, has no append-only file, or has evicted some: limits and usage can be lost."
          "Compare its settings with k8s/infrastructure/redis.nix: somebody has changed it while it runs. What was evicted is written again; CONFIG RESETSTAT then ends the alert.")
        (critical "RedisDown" "min(redis_up) == 0" "1m"
          "Redis does not answer. After ${grace} token-proxy answers 503."
          "kubectl -n platform describe pod redis-0, and its log. It comes back with what its file has. If its node is gone, and its volume with it: kubectl -n platform delete pvc data-redis-0 --wait=false, then kubectl -n platform delete pod redis-0 --force. It begins empty elsewhere, and is filled from Postgres.")
        (warning "RedisFilling" "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0)) > 0.8" "10m"
          "Redis' memory is 80 % full. When it is full, writing fails and nothing is served after the grace."
          "redis.memoryMiB; and why billing_ledger_stream_entries grows, if it does.")
        (critical "RedisCannotWrite" "min(redis_aof_last_write_status) == 0" "1m"
          "Redis cannot write its append-only file."
          "Its volume is full or broken: kubectl -n platform exec redis-0 -c redis -- df /data.")
        (critical "PostgresDown" "min by (job, pod) (control_postgres_up) == 0" "1m"
          "{{ $labels.job }}: pod {{ $labels.pod }} gets no answer of Postgres. Where no pod does, nobody can sign in, buy or change anything; agents go on, until Redis or a journal is full of usage."
          "If it is all pods: where postgres_url leads, and nix/README.md, Postgres, if it is lost. If it is one: its node, the network, or statements that take all of its connections (pg_stat_activity).")
        (critical "QuotaKeptByNobody" "max(control_quota_leader) < 1" "1m"
          "No billing-worker keeps the limits. Agents go on, but a token-proxy that starts answers 503, and after a restart of Redis all do."
          "Logs of the billing-worker: Postgres, Redis. Restart no token-proxy meanwhile.")
        (critical "QuotaEpochClosed" "max(control_quota_epoch_open) < 1" "2m"
          "Leases cannot grow: the new epoch waits."
          "If control_quota_undeclared_replicas is not 0: openclawctl ledger replicas, and for one that is gone for good openclawctl ledger declare-lost.")
        (warning "ReplicaSilent" "max(control_quota_silent_replicas) > 0" "10m"
          "A token-proxy is on the register and says nothing; what it leased stays held."
          "If its pod is gone with its journal: openclawctl ledger declare-lost.")
        (critical "LedgerLate" "max(billing_ledger_lag_seconds) > 60" "2m"
          "Usage events wait for more than a minute to be written to Postgres."
          "billing_ledger_retries_total says which side fails.")
        (warning "LedgerBacklog" "max(billing_ledger_stream_entries) > 10000" "10m"
          "The usage stream grows faster than it is written."
          "More billing-workers, or Postgres is slow.")
        (critical "DeadLetters" "sum(increase(billing_ledger_events_total{result=\"parked\"}[15m])) > 0" "0m"
          "Usage events could not be booked, and were parked: they are not billed."
          "openclawctl ledger deadletters list; repair the cause, and replay them.")
        (critical "ChangesUnpublished" "max(control_outbox_oldest_seconds) > 30" "1m"
          "A change of a grant or limit is saved for more than 30 s and no proxy knows it: a revoked token may still work."
          "Logs of the billing-worker: Redis.")
        (warning "ChangesSetAside" "max(control_outbox_failed_changes) > 0" "0m"
          "A change of a grant cannot be read, and was set aside."
          "Its row in config_changes, and the log of the billing-worker. Make the change again; then DELETE FROM config_changes WHERE failed_at IS NOT NULL ends the alert.")
        (warning "TierFileRefused" "max(control_tier_file_refused) > 0" "1m"
          "The tier table that was given is not in effect."
          "The log of the billing-worker says what is wrong with it.")
      ];
    }
    {
      name = "money";
      rules = [
        (critical "StripeEventsWait" "max(billing_stripe_inbox_oldest_seconds) > 900" "1m"
          "An event of Stripe's waits for more than a quarter of an hour: who paid may have no box."
          "billing_stripe_inbox_failing, and the log of the billing-worker.")
        (warning "StripeEventsFail" "max(billing_stripe_inbox_failing) > 0" "15m"
          "Events of Stripe's were tried in vain, and are tried again."
          "The log of the billing-worker has their ids.")
        # From 23 hours after it was first sent a report is not sent again before Stripe's own sum tells that it has to be.
        (critical "StripeReportsWait" "max(billing_stripe_reports_oldest_seconds) > 21600" "1m"
          "What a customer used above its limit waits for more than 6 hours to be reported to Stripe: it may come too late for the invoice, and 23 hours after it was first sent without an answer it may not be sent again."
          "openclawctl ledger verify, with STRIPE_SECRET_KEY, says of which customers reports wait (WAITING), and why (WHY), if their period ended within 35 days, or --overage-within 2160h. One that Stripe will never take, since its customer is gone there or its period is over for more than 35 days, is given up, unbilled, by UPDATE meter_reports SET reported_at = now() WHERE id = its id.")
        (warning "StripeReportsFail" "max(billing_stripe_reports_failing) > 0" "15m"
          "Reports of what was used above limits were sent to Stripe in vain, and are tried again."
          "openclawctl ledger verify, with STRIPE_SECRET_KEY, says why (WHY), and the log of the billing-worker. Of one that Stripe may have already they say what to do.")
        (warning "StripeWebhooksRefused" "sum(increase(billing_stripe_webhooks_total{result=~\"forged|malformed|other_version\"}[15m])) > 0" "0m"
          "Webhooks came that are not signed with our secret, or are of another version of Stripe's API."
          "After a change of the endpoint: stripe_webhook_secret, and openclawctl billing bootstrap.")
        (warning "SecondSubscriptions" "sum(increase(billing_stripe_second_subscriptions_total[1h])) > 0" "0m"
          "A subscription was cancelled because its customer had bought another one."
          "See whether money has to go back.")
        (warning "MailsFail" "sum(increase(billing_mails_total{result=~\"given_up|uncertain\"}[1h])) > 0" "0m"
          "Mails to customers did not go out, or may not have."
          "The log of the billing-worker; the SMTP server's.")
      ];
    }
    {
      name = "boxes";
      rules = [
        (critical "OperatorPolicyMissing" "max(operator_policy_in_force) < 1" "2m"
          "The admission policy that limits the operator's rights is not in force; it makes no boxes."
          "kubectl apply -f result/20-access.yaml, by an administrator. After its start an operator does not know before the API server has answered.")
        (critical "BoxesKeptByNobody" "max(operator_leader) < 1" "6m" # the Lease of one whose node is lost lasts 5 minutes
          "No operator leads: nobody who pays gets a box."
          "Logs of the operator: the API server, Postgres.")
        # It is 0 of those who do not lead; that nobody does is another alert, and waits for longer.
        (critical "SweepOld" "time() - max(operator_last_sweep_timestamp_seconds > 0) > 600" "1m"
          "The operator has not looked at all boxes for ten minutes."
          "Its log; operator_reconcile_errors_total.")
        # The age of a box that is changed is that of its last state, until its first pass.
        (critical "BoxesUnsettled" "max(operator_oldest_unsettled_seconds) > 1500" "3m"
          "A box has been on its way for more than 25 minutes, longer than all that it is given."
          "openclawctl box list, and box events of that one.")
        (warning "BoxesFailed" "max(operator_boxes{state=\"failed\"}) > 0" "5m"
          "Boxes could not be provisioned."
          "By cause in operator_box_failures_total; openclawctl box show says why.")
        (warning "BoxesUnhealthy" "max(operator_boxes{state=\"unhealthy\"}) > 0" "10m"
          "Gateways of customers are not ready."
          "openclawctl box logs. They are restarted by the operator.")
        (warning "BoxesFailOften" "sum by (cause) (increase(operator_box_failures_total[15m])) > 3" "0m"
          "Several boxes failed for the same cause within a quarter of an hour: {{ $labels.cause }}."
          "A cause that many share is ours: the image, a full cluster, the registry.")
        (warning "RollOutStands" "max(min_over_time(operator_rolling_gateways[30m])) > 0 unless on () sum(increase(operator_rolled_gateways_total[30m])) > 0" "30m"
          "Gateways are being replaced, and for an hour none has become ready."
          "The new image, or the new configuration.")
        (warning "OrphanNamespaces" "max(operator_orphan_namespaces) > 0" "10m"
          "There are namespaces of boxes that Postgres does not know."
          "Was Postgres put back to an older state? They are left alone.")
        (warning "PodsForced" "sum(increase(operator_forced_pods_total[15m])) > 0" "0m"
          "Pods were removed by force, because their node was lost."
          "If that node runs on, two gateways have one bot: look at it.")
      ];
    }
  ];
}
