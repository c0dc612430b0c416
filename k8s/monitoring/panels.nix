# Dashboards of Grafana from little: a title, rows of panels, each with expressions. Two panels stand in a
# row of the screen unless one says how wide it is.
{ lib }:
let
  target = refId: t: {
    inherit refId;
    datasource = { type = "prometheus"; uid = "prometheus"; };
    expr = t.expr;
    legendFormat = t.legend or "__auto";
    range = true;
  };
  letters = [ "A" "B" "C" "D" "E" "F" ];

  panel = { title, unit ? "short", targets, width ? 12, kind ? "timeseries", about ? "", stack ? false }: {
    inherit width;
    value = {
      inherit title;
      type = kind;
      description = about;
      datasource = { type = "prometheus"; uid = "prometheus"; };
      targets = lib.zipListsWith target letters targets;
      fieldConfig = {
        defaults = {
          inherit unit;
          min = 0;
        } // lib.optionalAttrs (kind == "timeseries") {
          custom = { fillOpacity = 10; lineWidth = 1; stacking.mode = if stack then "normal" else "none"; };
        };
        overrides = [ ];
      };
      options = if kind == "timeseries" then { legend = { displayMode = "list"; placement = "bottom"; }; tooltip.mode = "multi"; } else { reduceOptions.calcs = [ "lastNotNull" ]; };
    };
  };

  # Places panels from left to right, and a new row where one does not fit.
  place = panels:
    let
      step = s: p:
        let
          fits = s.x + p.width <= 24;
          x = if fits then s.x else 0;
          y = if fits then s.y else s.y + 8;
        in
        { x = x + p.width; inherit y; id = s.id + 1; done = s.done ++ [ (p.value // { inherit (s) id; gridPos = { inherit x y; w = p.width; h = 8; }; }) ]; };
    in
    (lib.foldl' step { x = 0; y = 0; id = 1; done = [ ]; } panels).done;
in
rec {
  # By what: the legend of one line per value of a label.
  by = label: "{{${label}}}";
  timeseries = title: unit: targets: panel { inherit title unit targets; };
  stacked = title: unit: targets: panel { inherit title unit targets; stack = true; };
  stat = title: unit: expr: panel { inherit title unit; targets = [{ inherit expr; }]; width = 4; kind = "stat"; };
  # Three quantiles of a histogram.
  quantiles = title: metric: selector: timeseries title "s" (map
    (q: { expr = "histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket${selector}[$__rate_interval])))"; legend = "p${lib.removePrefix "0." q}"; })
    [ "0.50" "0.99" "0.999" ]);

  dashboard = uid: { title, panels }: {
    inherit uid title;
    schemaVersion = 39;
    editable = false;
    refresh = "30s";
    tags = [ "openclaw" ];
    time = { from = "now-6h"; to = "now"; };
    timezone = "utc";
    panels = place panels;
  };
}
