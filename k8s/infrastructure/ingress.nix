# What is public, and nothing else: customers' pages, the api's customer routes, Stripe's webhook.
# Operators' routes, metrics and token-proxy are not: none of these paths leads to their ports.
{ config, lib, workload, ... }:
let
  cfg = config.openclaw;

  # A name may have several Ingresses, for annotations are of a whole one. All of a host share its
  # certificate, which the one with issue = true asks for.
  ingress = { host, tls, paths, issue ? false, annotations }: {
    metadata = {
      namespace = "platform";
      labels = workload.labels "ingress";
      annotations = {
        "nginx.ingress.kubernetes.io/ssl-redirect" = "true";
        # The path as it is matched is the path that is asked for: no rewriting, no regular expressions.
        "nginx.ingress.kubernetes.io/use-regex" = "false";
      } // lib.optionalAttrs issue { "cert-manager.io/cluster-issuer" = cfg.ingress.issuer; } // annotations;
    };
    spec = {
      ingressClassName = cfg.ingress.class;
      tls = [{ hosts = [ host ]; secretName = tls; }];
      rules = [{
        inherit host;
        http.paths = map
          (p: {
            inherit (p) path;
            pathType = p.type or "Prefix";
            backend.service = { name = p.to; port.name = "http"; };
          })
          paths;
      }];
    };
  };

  limited = {
    "nginx.ingress.kubernetes.io/limit-rps" = toString cfg.ingress.requestsPerSecond;
    "nginx.ingress.kubernetes.io/limit-connections" = toString cfg.ingress.connections;
  };

  # Events pass as they come, and a stream may be silent for long: the api ends its own after an hour.
  streams = seconds: {
    "nginx.ingress.kubernetes.io/proxy-buffering" = "off";
    "nginx.ingress.kubernetes.io/proxy-request-buffering" = "off";
    "nginx.ingress.kubernetes.io/proxy-http-version" = "1.1";
    "nginx.ingress.kubernetes.io/proxy-read-timeout" = toString seconds;
    "nginx.ingress.kubernetes.io/proxy-send-timeout" = toString seconds;
    # A request that has been sent is not sent to another pod: it may have been done.
    "nginx.ingress.kubernetes.io/proxy-next-upstream" = "error";
    "nginx.ingress.kubernetes.io/proxy-next-upstream-tries" = "2";
  };

  body = size: { "nginx.ingress.kubernetes.io/proxy-body-size" = size; };

  v1 = { path = "/v1"; to = "api"; };
in
{
  kubernetes.resources.ingresses = {
    # Pages and the api under one name, for the cookies of a session are of that name only.
    app = ingress {
      host = cfg.hosts.app;
      tls = "app-tls";
      issue = true;
      paths = [ v1 ] ++ lib.optional cfg.web.enable { path = "/"; to = "web"; };
      annotations = limited // streams 3900 // body "1m";
    };
    api = ingress {
      host = cfg.hosts.api;
      tls = "api-tls";
      issue = true;
      paths = [ v1 { path = "/openapi.json"; type = "Exact"; to = "api"; } ];
      annotations = limited // streams 3900 // body "1m";
    };
    # Stripe sends from few addresses, and many at once after an outage: it is known by its signature.
    stripe-webhook = ingress {
      host = cfg.hosts.api;
      tls = "api-tls";
      paths = [{ path = "/v1/webhooks/stripe"; type = "Exact"; to = "api"; }];
      annotations = body "1m";
    };
  } // lib.optionalAttrs cfg.ingress.publicProxy {
    proxy = ingress {
      host = cfg.hosts.proxy;
      tls = "proxy-tls";
      issue = true;
      paths = [{ path = "/v1"; to = "token-proxy"; }];
      # What limits a request is token-proxy, by its token. An agent's streams are one connection each.
      annotations = { "nginx.ingress.kubernetes.io/limit-connections" = "200"; } // streams 1800 // body "8m";
    };
  };
}
