"""Rules for what is in front: no proxy may cut, hold back or refuse what the gateway would not."""

import json
import re

from manifests import all_of, annotation, at, one, settings
from quantities import seconds, size

GKE = "networking.gke.io"
# What Google's load balancers allow for a whole response, unless told.
# https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries
GOOGLE_RESPONSE = 30
# What Envoy allows for a whole response, unless told; other controllers of the Gateway API may allow less.
# https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/timeouts#route-timeouts
ROUTE_RESPONSE = "15s"
# The silences that proxies bear: nginx's and many load balancers' 60 s between two reads.
USUAL_SILENCE = 60
# src/config/mod.rs, PUSH_BODY_MAX_BYTES.
PUSH_BODY = 16 << 20

NGINX = {
    "F5": {"buffering": "nginx.org/proxy-buffering", "silence": "nginx.org/proxy-read-timeout",
           "body": "nginx.org/client-max-body-size"},
    "Kubernetes'": {"buffering": "nginx.ingress.kubernetes.io/proxy-buffering",
                    "silence": "nginx.ingress.kubernetes.io/proxy-read-timeout",
                    "body": "nginx.ingress.kubernetes.io/proxy-body-size"},
}


def google_ingresses(docs):
    return [doc for doc in all_of(docs, "Ingress")
            if annotation(doc, "kubernetes.io/ingress.class", "").startswith("gce")]


def nginx_ingresses(docs):
    return [doc for doc in all_of(docs, "Ingress")
            if doc["spec"].get("ingressClassName") == "nginx"]


def google_gateways(docs):
    return [doc for doc in all_of(docs, "Gateway", "gateway.networking.k8s.io")
            if doc["spec"]["gatewayClassName"].startswith("gke-")]


def plain_gateways(docs):
    """Gateways of controllers other than Google's."""
    return [doc for doc in all_of(docs, "Gateway", "gateway.networking.k8s.io")
            if doc not in google_gateways(docs)]


def _policy(docs, kind):
    """The policy that is for the gateway's Service, or nothing."""
    for doc in all_of(docs, kind, GKE):
        target = doc["spec"]["targetRef"]
        if (target["group"], target["kind"], target["name"]) == ("", "Service", "stream-events"):
            return doc
    return None


def _responses(docs):
    """For how long each proxy lets a whole response last, as far as it has a limit."""
    if google_ingresses(docs):
        service = one(docs, "Service")
        names = json.loads(annotation(service, "cloud.google.com/backend-config", "{}"))
        config = one(docs, "BackendConfig", names.get("default"))
        yield "BackendConfig", at(config, "spec", "timeoutSec", default=GOOGLE_RESPONSE)
    if google_gateways(docs):
        policy = _policy(docs, "GCPBackendPolicy")
        yield "GCPBackendPolicy", at(policy, "spec", "default", "timeoutSec",
                                     default=GOOGLE_RESPONSE)
    for doc in all_of(docs, "HTTPRoute"):
        for rule in doc["spec"].get("rules", []):
            timeouts = rule.get("timeouts", {})
            if plain_gateways(docs) and rule.get("backendRefs"):
                timeouts = dict.fromkeys(("request", "backendRequest"), ROUTE_RESPONSE) | timeouts
            for name, text in timeouts.items():
                yield f"HTTPRoute: {name}", seconds(text)
    for doc in all_of(docs, "VirtualService"):
        for route in doc["spec"].get("http", []):
            if "timeout" in route:
                yield "VirtualService: timeout", seconds(route["timeout"])


def responses_may_last(docs):
    """The gateway ends each stream itself, within its age; a proxy would just cut."""
    age = seconds(settings(docs)["STREAM_EVENTS_STREAM_AGE_MAX"])
    for name, limit in _responses(docs):
        if limit < age:
            yield f"{name}: a response may last {limit} s, and a stream lasts {age:g} s"


def _silences(docs):
    yield "many proxies", USUAL_SILENCE
    for doc in nginx_ingresses(docs):
        for name, annotations in NGINX.items():
            yield f"{name} nginx", annotation(doc, annotations["silence"], USUAL_SILENCE)
    for doc in all_of(docs, "DestinationRule"):
        idle = at(doc, "spec", "trafficPolicy", "connectionPool", "http", "idleTimeout")
        if idle:
            yield "DestinationRule", idle


def silence_is_broken_in_time(docs):
    """Twice, so that one keep-alive may come late."""
    keep_alive = seconds(settings(docs)["STREAM_EVENTS_KEEP_ALIVE"])
    for name, limit in _silences(docs):
        if 2 * keep_alive >= seconds(limit):
            yield f"{name}: {limit} s of silence are too short for a keep-alive of {keep_alive:g} s"


def nginx_lets_through(docs):
    """Events at once, and pushes of the size that the gateway takes."""
    for doc in nginx_ingresses(docs):
        for name, annotations in NGINX.items():
            if annotation(doc, annotations["buffering"]) not in ("off", "false"):
                yield f"{name} nginx holds events back in buffers"
            # Above it, since what is too large is the gateway's to judge (--poison).
            if size(annotation(doc, annotations["body"], "1m")) <= PUSH_BODY:
                yield f"{name} nginx refuses pushes that the gateway answers"


def websockets_pass(docs):
    """F5's nginx is told which Service takes them, and no hop in a cluster speaks HTTP/2."""
    for doc in nginx_ingresses(docs):
        if "stream-events" not in annotation(doc, "nginx.org/websocket-services", "").split(","):
            yield "F5 nginx passes on no handshake of a WebSocket"
    for doc in all_of(docs, "DestinationRule"):
        if at(doc, "spec", "trafficPolicy", "connectionPool", "http",
              "h2UpgradePolicy") != "DO_NOT_UPGRADE":
            yield "Istio may speak HTTP/2 inside the mesh, which WebSockets do not pass"
    # Google's load balancers pass WebSockets on over HTTP/1.1 only.
    service = one(docs, "Service")
    protocols = [annotation(service, "cloud.google.com/app-protocols", "")]
    # The port "grpc" is for gRPC alone.
    protocols += [port.get("appProtocol", "") for port in service["spec"]["ports"] if port["name"] != "grpc"]
    if any(re.search("HTTP2|h2c", text, re.IGNORECASE) for text in protocols):
        yield "the Service is for HTTP/2, which WebSockets do not pass"


def mesh_tries_another_pod(docs):
    """When one is gone, and not after an answer: 503 asks for less. A message that is published may
    have arrived when its connection breaks, and would be published twice."""
    for doc in all_of(docs, "VirtualService"):
        for route in doc["spec"].get("http", []):
            wanted = {"connect-failure", "refused-stream"}
            # Publish of gRPC too.
            if not {"/publish/", "/stream_events.v1.StreamEvents/"} & {
                    at(match, "uri", "prefix", default="") for match in route.get("match", [])}:
                wanted.add("reset")
            # Without retryOn Istio tries again after 503 too.
            tried = set(at(route, "retries", "retryOn", default="503").split(","))
            if tried != wanted:
                yield f"Istio tries again after {sorted(tried)}"
            if at(route, "retries", "attempts", default=0) < 1:
                yield "Istio tries no other pod"


def unhealthy_by_default(docs):
    """Google's Gateway asks for /, which the gateway does not have, unless a policy says so."""
    if google_gateways(docs) and not _policy(docs, "HealthCheckPolicy"):
        yield "no HealthCheckPolicy for the Service: no pod would be healthy"


def proxies_are_counted(docs):
    """With too few all readers have one address, and with too many a reader can choose its address."""
    behind = (2 if google_ingresses(docs) or google_gateways(docs) else
              1 if nginx_ingresses(docs) or all_of(docs, "VirtualService") or plain_gateways(docs)
              else 0)
    trusted = int(settings(docs)["STREAM_EVENTS_TRUSTED_PROXIES"])
    if trusted != behind:
        yield f"TRUSTED_PROXIES is {trusted}, and {behind} add addresses"


RULES = [responses_may_last, silence_is_broken_in_time, nginx_lets_through, websockets_pass,
         mesh_tries_another_pod, unhealthy_by_default, proxies_are_counted]
