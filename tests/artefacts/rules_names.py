"""Rules of names: what one resource says of another is there."""

import json

from manifests import all_of, annotation, at, one, pod

# The kinds that tell a collector where metrics are, each with the member that has the ports and paths.
MONITORS = {"PodMonitoring": "endpoints", "PodMonitor": "podMetricsEndpoints",
            "ServiceMonitor": "endpoints"}


def labels_select(docs):
    """Each selector for the gateway's pods finds them, and the collector's port is theirs."""
    labels = at(one(docs, "Deployment"), "spec", "template", "metadata", "labels")
    selectors = {
        "Deployment": ("spec", "selector", "matchLabels"),
        "Service": ("spec", "selector"),
        "PodDisruptionBudget": ("spec", "selector", "matchLabels"),
        "NetworkPolicy": ("spec", "podSelector", "matchLabels"),
        "PodMonitoring": ("spec", "selector", "matchLabels"),
        "PodMonitor": ("spec", "selector", "matchLabels"),
        "PeerAuthentication": ("spec", "selector", "matchLabels"),
        "AuthorizationPolicy": ("spec", "selector", "matchLabels"),
    }
    for kind, path in selectors.items():
        doc = one(docs, kind)
        if doc and not (at(doc, *path) and at(doc, *path).items() <= labels.items()):
            yield f"{kind} is for pods with {at(doc, *path)}, the gateway's have {labels}"
    for spread in pod(docs).get("topologySpreadConstraints", []):
        if not spread["labelSelector"]["matchLabels"].items() <= labels.items():
            yield f"{spread['topologyKey']}: counts other pods"
    monitor = one(docs, "ServiceMonitor")
    wanted = at(monitor, "spec", "selector", "matchLabels", default={}).items()
    services = [doc for doc in all_of(docs, "Service") if wanted <= doc["metadata"]["labels"].items()]
    if monitor and not any(port["name"] == "ops" for doc in services for port in doc["spec"]["ports"]):
        yield "ServiceMonitor finds no Service with the port ops"
    for kind, endpoints in MONITORS.items():
        for endpoint in at(one(docs, kind), "spec", endpoints, default=[]):
            if (endpoint["port"], endpoint.get("path")) != ("ops", "/metrics"):
                yield f"metrics are not at {endpoint['port']} {endpoint.get('path')}"
    if monitor and one(docs, "PodMonitor"):
        yield "Prometheus scrapes each pod twice"


def _references(docs):
    """Every name that a resource gives another: of what kind, and which."""
    yield "ServiceAccount", pod(docs).get("serviceAccountName")
    for source in pod(docs)["containers"][0].get("envFrom", []):
        yield "ConfigMap", at(source, "configMapRef", "name")
    config = annotation(one(docs, "Service"), "cloud.google.com/backend-config")
    if config:
        yield "BackendConfig", json.loads(config).get("default")
    for doc in all_of(docs, "Ingress"):
        for kind, name in (("ManagedCertificate", "networking.gke.io/managed-certificates"),
                           ("FrontendConfig", "networking.gke.io/v1beta1.FrontendConfig")):
            if annotation(doc, name):
                yield kind, annotation(doc, name)
        for rule in doc["spec"].get("rules", []):
            for path in rule["http"]["paths"]:
                yield "Service", path["backend"]["service"]["name"]
    for doc in all_of(docs, "StatefulSet"):
        for volume in doc["spec"]["template"]["spec"]["volumes"]:
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"]
    for kind in ("GCPBackendPolicy", "HealthCheckPolicy", "GCPGatewayPolicy"):
        for doc in all_of(docs, kind):
            yield doc["spec"]["targetRef"]["kind"], doc["spec"]["targetRef"]["name"]
    for doc in all_of(docs, "HTTPRoute"):
        for parent in doc["spec"].get("parentRefs", []):
            yield "Gateway", parent["name"]
        for rule in doc["spec"].get("rules", []):
            for backend in rule.get("backendRefs", []):
                yield "Service", backend["name"]
    for doc in all_of(docs, "VirtualService"):
        for name in doc["spec"].get("gateways", []):
            yield "Gateway", name
        for route in doc["spec"].get("http", []):
            for destination in route.get("route", []):
                yield "Service", destination["destination"]["host"]
    for doc in all_of(docs, "DestinationRule"):
        yield "Service", doc["spec"]["host"]


def names_are_there(docs):
    for kind, name in _references(docs):
        # With the hash, if it has one.
        if name not in [doc["metadata"]["name"] for doc in all_of(docs, kind)]:
            yield f"there is no {kind} {name}"


def hosts_agree(docs):
    """One name for the outside, in the certificate, the listener and the routes."""
    hosts = set()
    for doc in docs:
        spec = doc.get("spec", {})
        if doc["kind"] == "Ingress":
            hosts |= {rule.get("host") for rule in spec["rules"]}
            hosts |= {host for tls in spec.get("tls", []) for host in tls["hosts"]}
        if doc["kind"] == "Gateway":
            hosts |= {host for server in spec.get("servers", []) for host in server["hosts"]}
            hosts |= {listener["hostname"] for listener in spec.get("listeners", [])
                      if "hostname" in listener}
        hosts |= {"HTTPRoute": set(spec.get("hostnames", [])),
                  "VirtualService": set(spec.get("hosts", [])),
                  "ManagedCertificate": set(spec.get("domains", []))}.get(doc["kind"], set())
    if len(hosts) > 1 or None in hosts:
        yield f"there are several names for the outside: {sorted(map(str, hosts))}"


RULES = [labels_select, names_are_there, hosts_agree]
