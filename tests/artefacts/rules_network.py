"""Rules of who reaches what: readers and pushes the public port, collectors the metrics."""

from urllib.parse import urlsplit

from manifests import all_of, at, one, pod, settings
from public_paths import public_paths
from rules_streams import google_gateways, google_ingresses

GOOGLE = {"130.211.0.0/22", "35.191.0.0/16"}  # Load balancers and health checks.
EVERYWHERE = {"0.0.0.0/0", "::/0"}
# GKE's metadata server, which gives pods the tokens of their account, and its port; the second one with
# Dataplane V2.
METADATA = {"169.254.169.252/32": 988, "169.254.169.254/32": 80}


def _port(address):
    return int(address.rsplit(":", 1)[1])


def ports_agree(docs):
    """The gateway listens where the pod says. Readers' Services lead to the public port alone."""
    texts = settings(docs)
    listen = {"http": _port(texts["STREAM_EVENTS_LISTEN"]),
              "ops": _port(texts["STREAM_EVENTS_OPS_LISTEN"])}
    declared = {port["name"]: port["containerPort"] for port in pod(docs)["containers"][0]["ports"]}
    if declared != listen:
        yield f"the gateway listens on {listen}, the pod says {declared}"
    for service in all_of(docs, "Service"):
        if service["spec"]["selector"] != at(one(docs, "Deployment"), "spec", "selector",
                                             "matchLabels"):
            continue
        # A headless Service forwards nothing: a collector finds the pods by its name.
        is_headless = service["spec"].get("clusterIP") == "None"
        for port in service["spec"]["ports"]:
            if port.get("targetPort") != ("ops" if is_headless else "http"):
                yield f"the Service leads to {port.get('targetPort')}, which is not for readers"
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield "the Service is open to the outside, past the overlays"
    for config in all_of(docs, "BackendConfig"):
        asked = at(config, "spec", "healthCheck", "port")
        if asked != listen["http"]:
            yield f"the load balancer asks for health on {asked}"


def _routes(docs):
    """Each path that something in front lets through, and whether it is only a beginning."""
    for doc in all_of(docs, "Ingress"):
        if "defaultBackend" in doc["spec"]:
            yield "/", True
        for rule in doc["spec"].get("rules", []):
            for path in rule["http"]["paths"]:
                yield path["path"], path["pathType"] != "Exact"
    for doc in all_of(docs, "HTTPRoute"):
        for rule in doc["spec"].get("rules", []):
            for match in rule.get("matches", [{}]) if rule.get("backendRefs") else []:
                path = match.get("path", {})
                yield path.get("value", "/"), path.get("type", "PathPrefix") != "Exact"
    for doc in all_of(docs, "VirtualService"):
        for route in doc["spec"].get("http", []):
            for match in route.get("match", [{}]):
                uri = match.get("uri", {})
                yield (uri.get("exact") or uri.get("prefix") or "/"), "exact" not in uri


def only_public_paths(docs):
    """Neither metrics nor health from outside, and all public paths."""
    routes, paths = set(_routes(docs)), public_paths(settings(docs))
    # They may be let through as a whole, with and without the slash at the end.
    beginnings = {text for path in paths if path.beginning
                  for text in (path.beginning, path.beginning.rstrip("/"))}
    for path, begins in sorted(routes):
        if path not in (beginnings if begins else {public.path for public in paths}):
            yield f"{path}{'…' if begins else ''} can be reached from outside"
    for public in paths if routes else []:
        if not any(public.example == path or begins and public.example.startswith(
                path.rstrip("/") + "/") for path, begins in routes):
            yield f"{public.path} cannot be reached from outside"


def _policy(docs, name="stream-events"):
    return at(one(docs, "NetworkPolicy", name), "spec", default={})


def _sources(docs, port):
    """Who may connect to a port of the pods: peers, or None for anyone."""
    for rule in _policy(docs).get("ingress", []):
        if port in [each.get("port") for each in rule.get("ports", [{"port": port}])]:
            yield from rule.get("from") or [None]


def network_is_closed(docs):
    """Both ways; metrics for named namespaces; from outside Google's load balancers only."""
    policy = _policy(docs)
    if set(policy.get("policyTypes", [])) != {"Ingress", "Egress"}:
        yield "the policy does not close both ways"
    for peer in _sources(docs, "ops"):
        if not at(peer, "namespaceSelector", "matchExpressions"):
            yield f"anyone of {peer} gets metrics"
    blocks = {at(peer, "ipBlock", "cidr") for peer in _sources(docs, "http")} - {None}
    google = bool(google_ingresses(docs) or google_gateways(docs))
    if blocks != (GOOGLE if google else set()):
        yield f"addresses {sorted(blocks)} get to the public port"
    proxied = int(settings(docs)["STREAM_EVENTS_TRUSTED_PROXIES"]) > 0
    if None in _sources(docs, "http") or proxied and {"namespaceSelector": {}} in \
            _sources(docs, "http"):
        yield "X-Forwarded-For is believed of every pod of the cluster"


def network_lets_out(docs):
    """DNS, the issuers' keys, and where the overlays need it Redis and Istio's control plane."""
    rules = _policy(docs).get("egress", [])
    ports = {port.get("port") for rule in rules for port in rule.get("ports", [])}
    needed = {53, 443}
    backplane = settings(docs)["STREAM_EVENTS_BACKPLANE"]
    if backplane != "local":
        needed.add(urlsplit(backplane).port or 6379)
    if all_of(docs, "PeerAuthentication"):
        needed.add(15012)
    if needed - ports:
        yield f"the pods cannot reach ports {sorted(needed - ports)}"
    if None in ports or any(not rule.get("ports") for rule in rules):
        yield "the pods can reach every port"
    # Neither the node's metadata server nor Workload Identity's, unless the pods need tokens to pull.
    allowed = METADATA if settings(docs)["STREAM_EVENTS_PULL"] else {}
    for rule in rules:
        addresses = [at(peer, "ipBlock", "cidr", default="") for peer in rule.get("to", [])]
        numbers = {port.get("port") for port in rule.get("ports", [])}
        if len(addresses) == 1 and numbers == {allowed.get(addresses[0])}:
            continue
        for port in sorted({80, 988} & numbers):
            yield f"the pods can reach a metadata server: port {port}"
        for address in addresses:
            if address.startswith("169.254.169."):
                yield f"the pods can reach a metadata server: {address}"


def only_the_gateway_writes_the_log(docs):
    """Whoever can write to Redis can publish."""
    if not one(docs, "StatefulSet", "stream-events-redis"):
        return
    policy = _policy(docs, "stream-events-redis")
    if policy.get("egress") or set(policy.get("policyTypes", [])) != {"Ingress", "Egress"}:
        yield "Redis may connect to others"
    template = at(one(docs, "StatefulSet", "stream-events-redis"), "spec", "template")
    if at(template, "metadata", "labels", "sidecar.istio.io/inject") != "false":
        yield "Redis may get a sidecar, which could not reach istiod"
    labels = at(one(docs, "Deployment"), "spec", "selector")
    for rule in policy.get("ingress", [{}]):
        if rule.get("from") != [{"podSelector": labels}]:
            yield f"{rule.get('from')} may write to Redis"


def mesh_asks_who_comes(docs):
    """Encrypted with a name, and only the ingress gateway's on the public port."""
    if not all_of(docs, "VirtualService"):
        return
    peers = at(one(docs, "PeerAuthentication"), "spec", default={})
    if at(peers, "mtls", "mode") != "STRICT":
        yield "what comes need not be of the mesh"
    if set(peers.get("portLevelMtls", {})) - {"9090"}:
        yield "a port that is not for metrics takes clear text"
    policy = at(one(docs, "AuthorizationPolicy"), "spec", default={})
    if policy.get("action") != "ALLOW" or not policy.get("rules"):
        yield "there is no list of who is allowed"
    for rule in policy.get("rules", []):
        named = all(source["source"].get("principals") for source in rule.get("from", [{
            "source": {}}]))
        for to in rule.get("to", [{"operation": {}}]):
            what = to["operation"]
            metrics = what.get("ports") == ["9090"] and what.get("paths") == ["/metrics"] \
                and what.get("methods") == ["GET"]
            if not metrics and not (named and what.get("ports") == ["8080"]):
                yield f"anyone may {what}"


def mesh_allows_public_paths(docs):
    """The sidecar refuses what the policy does not list: each public path is there, nothing else."""
    policy = at(one(docs, "AuthorizationPolicy"), "spec", default={})
    listed = [path for rule in policy.get("rules", []) for to in rule.get("to", [])
              if to["operation"].get("ports") == ["8080"] for path in to["operation"]["paths"]]
    wanted = {public.beginning + "*" if public.beginning else public.path
              for public in public_paths(settings(docs))}
    for path in sorted(wanted ^ set(listed)) if policy else []:
        yield f"{path} is {'refused' if path in wanted else 'allowed'} by the sidecar"


RULES = [ports_agree, only_public_paths, mesh_allows_public_paths, network_is_closed, network_lets_out,
         only_the_gateway_writes_the_log, mesh_asks_who_comes]
