"""Rules of how a pod leaves: nothing may cut its streams before it has ended them."""

import yaml

from manifests import all_of, annotation, at, one, pod, settings
from quantities import seconds

# After the drain the gateway takes this long at most for what sockets have not taken.
LAST_BYTES = 1


def leaving(docs):
    """Seconds from SIGTERM to the end, as the gateway takes them."""
    texts = settings(docs)
    delay = seconds(texts["STREAM_EVENTS_DRAIN_DELAY"])
    return delay, delay + seconds(texts["STREAM_EVENTS_DRAIN_TIMEOUT"]) + LAST_BYTES


def _pre_stop(docs):
    hook = at(pod(docs), "containers", 0, "lifecycle", "preStop")
    if hook is None:
        return 0
    # The image has no shell: anything but the kubelet's own sleep would fail.
    return at(hook, "sleep", "seconds", default=float("inf"))


def grace_outlasts_drain(docs):
    """Kubernetes kills what is left after the grace period, which preStop hooks are part of."""
    grace = pod(docs).get("terminationGracePeriodSeconds", 30)
    needed = _pre_stop(docs) + leaving(docs)[1]
    if grace <= needed:
        yield f"terminationGracePeriodSeconds is {grace}, and leaving takes {needed:g} s"


def _backends(docs):
    """What tells Google's load balancers about a backend: its name, and its settings."""
    for doc in all_of(docs, "BackendConfig"):
        yield "BackendConfig", doc["spec"]
    for doc in all_of(docs, "GCPBackendPolicy"):
        yield "GCPBackendPolicy", doc["spec"].get("default", {})


def backend_drains_as_long(docs):
    """The load balancer cuts the connections to a pod so long after it was taken out."""
    needed = leaving(docs)[1]
    for name, backend in _backends(docs):
        drain = at(backend, "connectionDraining", "drainingTimeoutSec", default=0)
        if drain < needed:
            yield f"{name}: drainingTimeoutSec is {drain}, and leaving takes {needed:g} s"


def _health_checks(docs):
    for doc in all_of(docs, "BackendConfig"):
        check = doc["spec"].get("healthCheck", {})
        yield "BackendConfig", check, check.get("requestPath")
    for doc in all_of(docs, "HealthCheckPolicy"):
        check = doc["spec"].get("default", {})
        yield "HealthCheckPolicy", check, at(check, "config", "httpHealthCheck", "requestPath")


def unready_is_seen_in_time(docs):
    """A pod that leaves must be known to be unready before it refuses anyone."""
    delay = leaving(docs)[0]
    for name, check, path in _health_checks(docs):
        interval = check.get("checkIntervalSec", 5)
        seen = interval * check.get("unhealthyThreshold", 2)
        if seen >= delay:
            yield f"{name}: it sees an unready pod after {seen} s, the drain delay is {delay:g} s"
        if path != "/readyz":
            yield f"{name}: it asks for {path}, not for /readyz"
        if check.get("timeoutSec", 5) > interval:
            yield f"{name}: timeoutSec is more than checkIntervalSec"


def sidecar_outlasts_drain(docs):
    """Istio's sidecar gets SIGTERM with the gateway, and takes all streams with it."""
    template = at(one(docs, "Deployment"), "spec", "template")
    if at(template, "metadata", "labels", "sidecar.istio.io/inject") != "true":
        return
    config = yaml.safe_load(annotation(template, "proxy.istio.io/config", "{}"))
    drain = seconds(config.get("terminationDrainDuration", "5s"))
    needed, grace = leaving(docs)[1], pod(docs)["terminationGracePeriodSeconds"]
    if not needed < drain < grace:
        yield f"terminationDrainDuration is {drain:g} s, not between {needed:g} s and {grace} s"
    if not config.get("holdApplicationUntilProxyStarts"):
        yield "the gateway may start before its sidecar, and fetch no keys"
    if annotation(template, "sidecar.istio.io/rewriteAppHTTPProbers") != "true":
        yield "the kubelet's probes have no certificate of the mesh"


RULES = [grace_outlasts_drain, backend_drains_as_long, unready_is_seen_in_time,
         sidecar_outlasts_drain]
