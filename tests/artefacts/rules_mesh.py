"""Rules of a mesh: which hosts outside of it the pods need, and how two versions share the requests."""

from urllib.parse import urlsplit

from manifests import all_of, at, one, settings


def needed_hosts_are_known(docs):
    """In a mesh with REGISTRY_ONLY the sidecar lets the pods connect to hosts of ServiceEntries alone."""
    if not all_of(docs, "PeerAuthentication"):
        return
    texts = settings(docs)
    known = {host for doc in all_of(docs, "ServiceEntry") for host in doc["spec"]["hosts"]
             if 443 in [port["number"] for port in doc["spec"]["ports"]]}
    needed = {}
    if texts["STREAM_EVENTS_PUSH_AUTH"] == "oidc":
        needed["push tokens"] = texts["STREAM_EVENTS_PUSH_JWKS_URL"]
    if texts["STREAM_EVENTS_READ_AUTH"] == "jwt":
        # The issuer's host stands for that of its keys, which is still to be edited.
        needed["readers' tokens"] = texts["STREAM_EVENTS_READ_ISSUER"]
    if texts["STREAM_EVENTS_PULL"]:
        needed["Pub/Sub"] = texts["STREAM_EVENTS_PULL_ENDPOINT"]
    for what, url in needed.items():
        if urlsplit(url).hostname not in known:
            yield f"{what}: no ServiceEntry has {urlsplit(url).hostname}"


def versions(docs):
    """Each Deployment of the gateway, by name."""
    return {doc["metadata"]["name"]: doc for doc in all_of(docs, "Deployment")}


def versions_share_a_log(docs):
    """Of two versions with events in memory, each would have a part of the pushes."""
    found = versions(docs)
    if len(found) < 2:
        return
    logs = set()
    for name, doc in found.items():
        source = at(doc, "spec", "template", "spec", "containers", 0, "envFrom", 0, "configMapRef", "name")
        # The Deployment names the ConfigMap with its hash.
        config = next((doc for doc in all_of(docs, "ConfigMap") if doc["metadata"]["name"] == source), None)
        if not config:
            yield f"{name}: there is no ConfigMap {source}"
        logs.add(at(config, "data", "STREAM_EVENTS_BACKPLANE", default="local"))
    if len(logs) > 1 or "local" in logs:
        yield f"the versions do not share a log: {sorted(logs)}"


def subsets_are_versions(docs):
    """Each subset selects the pods of one Deployment, and each Deployment's pods are in one subset."""
    subsets = at(one(docs, "DestinationRule"), "spec", "subsets", default=[])
    found = versions(docs)
    if len(found) > 1 and not subsets:
        yield "the versions cannot be told apart: there are no subsets"
    selected = []
    for subset in subsets:
        names = [name for name, doc in found.items()
                 if subset["labels"].items() <= doc["spec"]["template"]["metadata"]["labels"].items()]
        selected += names
        if len(names) != 1:
            yield f"subset {subset['name']} selects {names}"
    if subsets and sorted(selected) != sorted(found):
        yield f"the subsets select {sorted(selected)}, of {sorted(found)}"
    selectors = [doc["spec"]["selector"]["matchLabels"] for doc in found.values()]
    if any(selector in selectors[:index] for index, selector in enumerate(selectors)):
        yield "two Deployments have one selector"


def weights_are_whole(docs):
    """The routes' weights are the same for every path, and all of them together are 100."""
    subsets = {subset["name"] for subset in
               at(one(docs, "DestinationRule"), "spec", "subsets", default=[])}
    shares = []
    for route in at(one(docs, "VirtualService"), "spec", "http", default=[]) if subsets else []:
        weights = {to["destination"].get("subset"): to.get("weight") for to in route["route"]}
        shares.append(weights)
        if set(weights) != subsets:
            yield f"a route leads to {sorted(map(str, weights))}, and the subsets are {sorted(subsets)}"
        elif None in weights.values() or sum(weights.values()) != 100:
            yield f"the weights {list(weights.values())} are not 100 together"
    if any(weights != shares[0] for weights in shares):
        yield f"the weights differ by path: {shares}"


RULES = [needed_hosts_are_known, versions_share_a_log, subsets_are_versions, weights_are_whole]
