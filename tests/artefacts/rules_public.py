"""Rules of what is reached from outside of the cluster: it asks for tokens, and has limits."""

import re

from manifests import ROOT, all_of, annotation, at, one, settings
from rules_streams import google_gateways, google_ingresses, plain_gateways

FRONTS = ("Ingress", "Gateway", "HTTPRoute", "VirtualService")
PLACEHOLDER = "EDIT"


def _is_public(docs):
    """Tells whether someone outside of the cluster can reach the gateway."""
    services = all_of(docs, "Service")
    return any(all_of(docs, kind) for kind in FRONTS) or any(
        service["spec"].get("type", "ClusterIP") != "ClusterIP" for service in services)


def outside_needs_tokens(docs):
    """Readers and pushes from outside need a token, of one issuer and for one audience."""
    texts = settings(docs)
    if not _is_public(docs):
        return
    for name, wanted in (("READ_AUTH", ["jwt"]), ("PUSH_AUTH", ["oidc", "off"])):
        if texts[f"STREAM_EVENTS_{name}"] not in wanted:
            yield f"{name} is {texts[f'STREAM_EVENTS_{name}']}: everyone outside may do it"
    if texts["STREAM_EVENTS_PUBLISH_AUTH"] == "none":
        yield "PUBLISH_AUTH is none: everyone outside may do it"
    for name in ("READ_ISSUER", "READ_AUDIENCE", "PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT"):
        if not texts[f"STREAM_EVENTS_{name}"]:
            yield f"{name} is empty: tokens for others are good here too"
    # A placeholder that is a URL would start a gateway that trusts whoever owns that name.
    if texts["STREAM_EVENTS_READ_JWKS_URL"] != PLACEHOLDER:
        yield f"READ_JWKS_URL is not {PLACEHOLDER}, at which the gateway refuses to start"


def without_tokens_nobody_connects(docs):
    """Where a push needs no token, the network lets nobody to the public port."""
    if settings(docs)["STREAM_EVENTS_PUSH_AUTH"] != "none":
        return
    for rule in at(one(docs, "NetworkPolicy"), "spec", "ingress", default=[{}]):
        if [port.get("port") for port in rule.get("ports", [])] != ["ops"]:
            yield f"{rule.get('from', 'everyone')} may push without a token"


def _l7_numbers():
    """Streams, and requests a second, that deploy/nginx/l7.conf allows one address."""
    text = (ROOT / "deploy/nginx/l7.conf").read_text()
    return (int(re.search(r"^\s*limit_conn by_address (\d+);", text, re.MULTILINE)[1]),
            int(re.search(r"limit_req_zone .* rate=(\d+)r/s;", text)[1]))


def one_address_cannot_take_all(docs):
    """The limits per address are on, with the numbers of l7.conf, and count readers' addresses."""
    texts = settings(docs)
    if not _is_public(docs):
        return
    for name, wanted in zip(("STREAMS", "REQUESTS"), _l7_numbers()):
        text = texts[f"STREAM_EVENTS_{name}_PER_ADDRESS"]
        if int(text) != wanted:
            yield f"{name}_PER_ADDRESS is {text}, and l7.conf has {wanted}"
    if int(texts["STREAM_EVENTS_STREAMS_PER_ADDRESS"]) * 10 > \
            int(texts["STREAM_EVENTS_SUBSCRIBERS_MAX"]):
        yield "one address can take a tenth of all streams and more"
    if int(texts["STREAM_EVENTS_PUSH_FAILURES_PER_ADDRESS"]) == 0:
        yield "one address can push with bad tokens as fast as it likes"
    if int(texts["STREAM_EVENTS_CONNECTIONS_PER_ADDRESS"]) != 0:
        yield "all connections are the proxy's, and CONNECTIONS_PER_ADDRESS counts them"
    if int(texts["STREAM_EVENTS_TRUSTED_PROXIES"]) == 0:
        yield "all readers have the proxy's address"


def _tls_policies(docs):
    """Each of Google's load balancers, and the name of its SSL policy."""
    for doc in google_ingresses(docs):
        name = annotation(doc, "networking.gke.io/v1beta1.FrontendConfig", "")
        yield "Ingress", at(one(docs, "FrontendConfig", name), "spec", "sslPolicy")
    for doc in google_gateways(docs):
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway",
                  "name": doc["metadata"]["name"]}
        found = [policy for policy in all_of(docs, "GCPGatewayPolicy")
                 if policy["spec"]["targetRef"] == target]
        yield "Gateway", at(found, 0, "spec", "default", "sslPolicy")


def old_tls_is_refused(docs):
    """Google's load balancers accept TLS 1.0 unless an SSL policy forbids it; Istio is told too."""
    for kind, policy in _tls_policies(docs):
        if not policy:
            yield f"{kind}: without an SSL policy it accepts TLS 1.0"
    for doc in all_of(docs, "Gateway", "networking.istio.io"):
        for server in doc["spec"]["servers"]:
            least = at(server, "tls", "minProtocolVersion", default="none")
            if at(server, "tls", "mode") and least not in ("TLSV1_2", "TLSV1_3"):
                yield f"Istio: the oldest version of TLS is {least}"


def listeners_have_certificates(docs):
    """The Gateway API has no field for the versions of TLS, but one for the certificate."""
    for doc in plain_gateways(docs):
        for listener in doc["spec"]["listeners"]:
            if listener["protocol"] == "HTTPS" and not at(listener, "tls", "certificateRefs"):
                yield f"{listener['name']}: there is no certificate"
    for doc in all_of(docs, "HTTPRoute") if plain_gateways(docs) else []:
        for rule in doc["spec"]["rules"]:
            listeners = [parent.get("sectionName") for parent in doc["spec"]["parentRefs"]]
            if rule.get("backendRefs") and listeners != ["https"]:
                yield f"{doc['metadata']['name']}: tokens may come in clear text, by {listeners}"


RULES = [outside_needs_tokens, without_tokens_nobody_connects, one_address_cannot_take_all,
         old_tls_is_refused, listeners_have_certificates]
