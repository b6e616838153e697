"""What a careless edit opens to the outside, and which rule must tell of it."""

import rules_public as public
from changing import MISSING, add, put, setting, without

# The rule, where, the change, and what the rule says then.
CHANGES = [
    *[(public.outside_needs_tokens, name, setting("READ_AUTH", "anonymous"), "READ_AUTH is anon")
      for name in ("gke-ingress", "gke-gateway", "gateway", "nginx-ingress", "istio+redis")],
    (public.outside_needs_tokens, "base", put("LoadBalancer", "Service", "spec", "type"),
     "READ_AUTH is anonymous"),
    (public.outside_needs_tokens, "istio", setting("PUSH_AUTH", "none"), "PUSH_AUTH is none"),
    (public.outside_needs_tokens, "istio", setting("PUBLISH_AUTH", "none"), "PUBLISH_AUTH is none"),
    (public.outside_needs_tokens, "gke-gateway", setting("READ_ISSUER", ""), "READ_ISSUER is"),
    (public.outside_needs_tokens, "gke-gateway", setting("READ_AUDIENCE", ""), "READ_AUDIENCE is"),
    (public.outside_needs_tokens, "nginx-ingress", setting("READ_JWKS_URL",
     "https://login.example.com/jwks.json"), "refuses to start"),
    (public.without_tokens_nobody_connects, "try", add({"from": [{"podSelector": {}}],
     "ports": [{"port": "http"}]}, "NetworkPolicy", "spec", "ingress"), "push without a token"),
    (public.without_tokens_nobody_connects, "try", without("NetworkPolicy"),
     "everyone may push without"),
    (public.without_tokens_nobody_connects, "base", setting("PUSH_AUTH", "none"),
     "push without a token"),
    (public.one_address_cannot_take_all, "gke-ingress", setting("STREAMS_PER_ADDRESS", "0"),
     "STREAMS_PER_ADDRESS is 0"),
    (public.one_address_cannot_take_all, "istio", setting("REQUESTS_PER_ADDRESS", "1000"),
     "REQUESTS_PER_ADDRESS is 1000"),
    (public.one_address_cannot_take_all, "gke-gateway", setting("SUBSCRIBERS_MAX", "5000"),
     "a tenth"),
    (public.one_address_cannot_take_all, "gke-gateway", setting("PUSH_FAILURES_PER_ADDRESS", "0"),
     "bad tokens"),
    (public.one_address_cannot_take_all, "nginx-ingress", setting("CONNECTIONS_PER_ADDRESS", "100"),
     "are the proxy's"),
    (public.one_address_cannot_take_all, "nginx-ingress", setting("TRUSTED_PROXIES", "0"),
     "have the proxy's address"),
    (public.old_tls_is_refused, "gke-ingress", put(MISSING, "FrontendConfig", "spec", "sslPolicy"),
     "Ingress: without"),
    (public.old_tls_is_refused, "gke-gateway", without("GCPGatewayPolicy"), "Gateway: without"),
    (public.old_tls_is_refused, "gke-gateway", put("Service", "GCPGatewayPolicy", "spec",
     "targetRef", "kind"), "Gateway: without"),
    (public.old_tls_is_refused, "istio", put("TLSV1_0", "Gateway", "spec", "servers", 0, "tls",
     "minProtocolVersion"), "TLSV1_0"),
    (public.listeners_have_certificates, "gateway", put(MISSING, "Gateway", "spec", "listeners", 0,
     "tls"), "no certificate"),
    (public.listeners_have_certificates, "gateway", put("http", "HTTPRoute", "spec", "parentRefs", 0,
     "sectionName"), "clear text"),
]
