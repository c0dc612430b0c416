# Throughput of token-proxy, and what it refuses.
p: {
  title = "token-proxy";
  panels = [
    (p.stat "Requests" "reqps" "sum(rate(token_proxy_outcomes_total[5m]))")
    (p.stat "Tokens per second" "short" "sum(rate(token_proxy_tokens_total{kind!=\"cached\"}[5m]))")
    (p.stat "Streams" "short" "sum(token_proxy_streams)")
    (p.stat "Refused" "reqps" "sum(rate(token_proxy_blocked_total[5m]))")
    (p.stat "Added latency, p99" "s" "histogram_quantile(0.99, sum by (le) (rate(token_proxy_admission_seconds_bucket[5m])))")
    (p.stat "Keys cooling" "short" "max(token_proxy_upstream_keys_cooling)")
    # The cached tokens are part of the prompt's.
    (p.stacked "Tokens by tier" "short" [{ expr = "sum by (tier) (rate(token_proxy_tokens_total{kind!=\"cached\"}[$__rate_interval]))"; legend = p.by "tier"; }])
    (p.stacked "Tokens by model and kind" "short" [{ expr = "sum by (model, kind) (rate(token_proxy_tokens_total{kind!=\"cached\"}[$__rate_interval]))"; legend = "{{model}} {{kind}}"; }])
    (p.timeseries "Prompt tokens that Kimi had cached" "percentunit" [{
      expr = "sum by (model) (rate(token_proxy_tokens_total{kind=\"cached\"}[$__rate_interval])) / sum by (model) (rate(token_proxy_tokens_total{kind=\"prompt\"}[$__rate_interval]))";
      legend = p.by "model";
    }])
    (p.stacked "How requests end" "reqps" [{ expr = "sum by (outcome, basis) (rate(token_proxy_outcomes_total[$__rate_interval]))"; legend = "{{outcome}} ({{basis}})"; }])
    (p.stacked "Refused, by reason" "reqps" [{ expr = "sum by (reason) (rate(token_proxy_blocked_total[$__rate_interval])) > 0"; legend = p.by "reason"; }])
    (p.timeseries "Errors of the upstream" "reqps" [{ expr = "sum by (status_code) (rate(token_proxy_upstream_errors_total[$__rate_interval]))"; legend = p.by "status_code"; }])
    (p.quantiles "Until the answer begins" "token_proxy_upstream_ttfb_seconds" "")
    (p.quantiles "Added latency" "token_proxy_admission_seconds" "")
    (p.timeseries "In flight" "short" [
      { expr = "sum(token_proxy_requests_in_flight)"; legend = "requests"; }
      { expr = "sum(token_proxy_streams)"; legend = "streams"; }
      { expr = "sum(token_proxy_connections)"; legend = "connections"; }
      { expr = "sum(token_proxy_upstream_requests_in_flight)"; legend = "at the upstream"; }
    ])
    (p.timeseries "Upstream: retries, cooling keys, breaker" "short" [
      { expr = "sum by (upstream, done) (increase(token_proxy_upstream_retries_total[$__rate_interval]))"; legend = "{{upstream}} retries, done {{done}}"; }
      { expr = "sum by (upstream) (increase(token_proxy_upstream_cooldowns_total[$__rate_interval]))"; legend = "{{upstream}} set aside"; }
      { expr = "max by (upstream) (token_proxy_upstream_breaker_open)"; legend = "{{upstream}} breaker"; }
    ])
    (p.timeseries "Look-ups of tokens" "ops" [{ expr = "sum by (result) (rate(token_proxy_grant_lookups_total[$__rate_interval]))"; legend = p.by "result"; }])
    (p.timeseries "Memory per pod" "bytes" [{ expr = "process_resident_memory_bytes{job=\"token-proxy\"}"; legend = p.by "pod"; }])
    (p.timeseries "Refused for want of processors" "percentunit" [{ expr = "token_proxy_overload_share"; legend = p.by "pod"; }])
    (p.timeseries "Bodies in memory" "bytes" [{ expr = "token_proxy_request_bytes"; legend = p.by "pod"; }])
  ];
}
