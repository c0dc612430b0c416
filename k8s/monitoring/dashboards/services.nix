# Latency and health of each service.
p: {
  title = "Services";
  panels = [
    (p.timeseries "Pods that answer" "short" [{ expr = "sum by (job) (up)"; legend = p.by "job"; }])
    (p.timeseries "Processor time" "short" [{ expr = "sum by (job) (rate(process_cpu_seconds_total[$__rate_interval]))"; legend = p.by "job"; }])
    (p.timeseries "Memory" "bytes" [{ expr = "max by (job) (process_resident_memory_bytes)"; legend = p.by "job"; }])
    (p.timeseries "Goroutines" "short" [{ expr = "max by (job) (go_goroutines)"; legend = p.by "job"; }])
    (p.timeseries "api: requests" "reqps" [{ expr = "sum by (side, status) (rate(control_api_requests_total[$__rate_interval]))"; legend = "{{side}} {{status}}"; }])
    (p.timeseries "api: slowest routes, p99" "s" [{
      expr = "topk(8, histogram_quantile(0.99, sum by (le, route) (rate(control_api_request_seconds_bucket{route!~\".*/(events|export|logs|traffic)\"}[$__rate_interval]))))";
      legend = p.by "route";
    }])
    (p.quantiles "api: latency" "control_api_request_seconds" "{route!~\".*/(events|export|logs|traffic)\"}")
    (p.quantiles "token-proxy: added latency" "token_proxy_admission_seconds" "")
    (p.quantiles "token-proxy: until the answer begins" "token_proxy_upstream_ttfb_seconds" "")
    (p.quantiles "token-proxy: whole request" "token_proxy_request_duration_seconds" "")
    (p.quantiles "billing-worker: from Redis to Postgres" "billing_ledger_delay_seconds" "")
    (p.quantiles "operator: one pass over a box" "operator_reconcile_seconds" "")
    (p.timeseries "Pods that reach Postgres" "short" [{ expr = "sum by (job) (control_postgres_up)"; legend = p.by "job"; }])
    (p.timeseries "Redis: commands" "ops" [{ expr = "sum(rate(redis_commands_processed_total[$__rate_interval]))"; legend = "commands"; }])
    (p.timeseries "Redis: memory" "bytes" [
      { expr = "max(redis_memory_used_bytes)"; legend = "used"; }
      { expr = "max(redis_memory_max_bytes)"; legend = "limit"; }
    ])
  ];
}
