"""Rules of gateways that pull: who the pods are to Pub/Sub, and that their tokens can be had."""

import re

from manifests import annotation, at, one, pod, settings
from rules_network import METADATA

SUBSCRIPTION = re.compile(r"projects/[a-z0-9.:-]+/subscriptions/[A-Za-z][\w.~%+-]{2,254}(=[\w.~%+-]+)?")


def _pulled(docs):
    """The subscriptions, as the setting has them."""
    return [text for text in (settings(docs)["STREAM_EVENTS_PULL"] or "").split(",") if text]


def subscriptions_have_topics(docs):
    """Each names its topic: two of one topic are one topic's events, and no name is a surprise."""
    for text in _pulled(docs):
        if not SUBSCRIPTION.fullmatch(text) or "=" not in text:
            yield f"{text} does not name a subscription and its topic"


def pods_are_an_account(docs):
    """Workload Identity, by the annotation; no key file, which would be a secret that never ends."""
    account = annotation(one(docs, "ServiceAccount"), "iam.gke.io/gcp-service-account", "")
    if not _pulled(docs):
        return
    if not re.fullmatch(r"[a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com", account):
        yield f"the pods have no account of Google's: {account}"
    for variable in pod(docs)["containers"][0].get("env", []):
        if variable["name"] == "GOOGLE_APPLICATION_CREDENTIALS":
            yield "the pods have a key file"


def tokens_can_be_had(docs):
    """The metadata server can be reached, by either way of GKE's networks."""
    if not _pulled(docs):
        return
    reached = {(at(peer, "ipBlock", "cidr"), port.get("port"))
               for rule in at(one(docs, "NetworkPolicy"), "spec", "egress", default=[])
               for peer in rule.get("to", []) for port in rule.get("ports", [])}
    for address, port in METADATA.items():
        if (address, port) not in reached:
            yield f"no token can be had: {address} port {port} cannot be reached"


def messages_come_in(docs):
    """A gateway takes pushes, or pulls."""
    if settings(docs)["STREAM_EVENTS_PUSH_AUTH"] == "off" and not _pulled(docs):
        yield "no message comes in: there are no pushes, and nothing is pulled"


def tokens_leave_over_tls(docs):
    """With http the gateway sends no token, and Pub/Sub answers nothing."""
    endpoint = settings(docs)["STREAM_EVENTS_PULL_ENDPOINT"]
    if _pulled(docs) and not re.fullmatch(r"https://[a-z.-]+\.googleapis\.com", endpoint):
        yield f"{endpoint} is not Google's"


RULES = [subscriptions_have_topics, pods_are_an_account, tokens_can_be_had, messages_come_in,
         tokens_leave_over_tls]
