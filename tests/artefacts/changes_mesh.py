"""What a careless edit does to a mesh, and which rule must tell of it."""

import rules_mesh as mesh
from changing import MISSING, put, setting, without

CANARY = "istio-canary"
DEPLOYMENT = "stream-events-canary"
LABELS = ("spec", "template", "metadata", "labels")
ROUTE = ("spec", "http", 1, "route", 1)


def canary_in_memory(docs):
    for doc in docs:
        if doc["kind"] == "ConfigMap" and "-canary-" in doc["metadata"]["name"]:
            del doc["data"]["STREAM_EVENTS_BACKPLANE"]


# The rule, where, the change, and what the rule says then.
CHANGES = [
    (mesh.needed_hosts_are_known, "istio", without("ServiceEntry"), "has www.googleapis.com"),
    (mesh.needed_hosts_are_known, "istio", put(80, "ServiceEntry", "spec", "ports", 0, "number"),
     "has www.googleapis.com"),
    (mesh.needed_hosts_are_known, "istio+redis", setting("READ_ISSUER", "https://id.example.com"),
     "has id.example.com"),
    (mesh.needed_hosts_are_known, "istio+pull", put(["www.googleapis.com", "login.example.com"],
     "ServiceEntry", "spec", "hosts"), "has pubsub.googleapis.com"),
    (mesh.versions_share_a_log, CANARY, canary_in_memory, "do not share a log"),
    (mesh.versions_share_a_log, CANARY, setting("BACKPLANE", "redis://other:6379"), "do not share a log"),
    (mesh.versions_share_a_log, CANARY, put("stream-events", "Deployment", "spec", "template", "spec",
     "containers", 0, "envFrom", 0, "configMapRef", "name", name=DEPLOYMENT), "no ConfigMap"),
    (mesh.subsets_are_versions, CANARY, put(MISSING, "DestinationRule", "spec", "subsets"), "told apart"),
    (mesh.subsets_are_versions, CANARY, put("stable", "Deployment", *LABELS, "version", name=DEPLOYMENT),
     "selects []"),
    (mesh.subsets_are_versions, CANARY, put({"app.kubernetes.io/name": "stream-events"},
     "DestinationRule", "spec", "subsets", 0, "labels"), "subset stable selects"),
    (mesh.subsets_are_versions, CANARY, put({"app.kubernetes.io/name": "stream-events"}, "Deployment",
     "spec", "selector", "matchLabels", name=DEPLOYMENT), "one selector"),
    (mesh.weights_are_whole, CANARY, put(20, "VirtualService", *ROUTE, "weight"), "not 100"),
    (mesh.weights_are_whole, CANARY, put(MISSING, "VirtualService", *ROUTE), "a route leads to"),
    (mesh.weights_are_whole, CANARY, put([{"destination": {"host": "stream-events", "subset": name},
     "weight": 50} for name in ("stable", "canary")], "VirtualService", "spec", "http", 2, "route"),
     "differ by path"),
]
