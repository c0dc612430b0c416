# Health of customers' pods, as the operator sees it.
p: {
  title = "Boxes";
  panels = [
    (p.stat "Active" "short" "max(operator_boxes{state=\"active\"})")
    (p.stat "Unhealthy" "short" "max(operator_boxes{state=\"unhealthy\"})")
    (p.stat "Failed" "short" "max(operator_boxes{state=\"failed\"})")
    (p.stat "Suspended" "short" "max(operator_boxes{state=\"suspended\"})")
    (p.stat "On their way, the longest" "s" "max(operator_oldest_unsettled_seconds)")
    (p.stat "Since the last sweep" "s" "time() - max(operator_last_sweep_timestamp_seconds > 0)")
    (p.stacked "Boxes by state" "short" [{ expr = "max by (state) (operator_boxes)"; legend = p.by "state"; }])
    (p.timeseries "Operations that ended" "short" [{ expr = "sum by (operation, result) (increase(operator_operations_total[$__rate_interval]))"; legend = "{{operation}} {{result}}"; }])
    (p.timeseries "Steps, p95" "s" [{ expr = "histogram_quantile(0.95, sum by (le, step) (rate(operator_step_seconds_bucket[$__rate_interval])))"; legend = p.by "step"; }])
    (p.timeseries "Failures by cause" "short" [{ expr = "sum by (cause) (increase(operator_box_failures_total[$__rate_interval]))"; legend = p.by "cause"; }])
    (p.timeseries "Found unhealthy, restarted, removed by force" "short" [
      { expr = "sum(increase(operator_box_unhealthy_total[$__rate_interval]))"; legend = "unhealthy"; }
      { expr = "sum(increase(operator_restarted_pods_total[$__rate_interval]))"; legend = "restarted"; }
      { expr = "sum(increase(operator_forced_pods_total[$__rate_interval]))"; legend = "by force"; }
    ])
    (p.timeseries "Drift put right" "short" [{ expr = "sum by (kind) (increase(operator_repaired_objects_total[$__rate_interval]))"; legend = p.by "kind"; }])
    (p.timeseries "Queue and errors" "short" [
      { expr = "max(operator_queue_boxes)"; legend = "boxes that wait"; }
      { expr = "max(operator_rolling_gateways)"; legend = "being replaced"; }
      { expr = "sum(increase(operator_reconcile_errors_total[$__rate_interval]))"; legend = "errors"; }
      { expr = "max(operator_orphan_namespaces)"; legend = "namespaces of nobody"; }
    ])
    (p.timeseries "Requests to the API server" "reqps" [{ expr = "sum by (verb, status) (rate(operator_api_requests_total[$__rate_interval]))"; legend = "{{verb}} {{status}}"; }])
    (p.timeseries "Leads; its policy is in force" "short" [
      { expr = "sum(operator_leader)"; legend = "leaders"; }
      { expr = "max(operator_policy_in_force)"; legend = "policy"; }
    ])
  ];
}
