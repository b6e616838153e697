"""Hooks of schemathesis: what OpenAPI cannot say about a request.

Push: the form of the body and the query and the headers depend on each other. A body of
`application/octet-stream` is data only with `payload=raw`, and a body of JSON is an envelope only
without it and without the headers of Pub/Sub and of CloudEvents.

Publish: a body of JSON is the messages of `format=pubsub` and nothing else is, and the parameters of
one message are not allowed with it. Limits are in bytes, and those of OpenAPI in characters.

Events: `limit` and `wait` are for polls only, `presence` and `name` are for streams of named topics
only, `format=data` is for server-sent events only, and a
filter is an expression. OpenAPI does not describe `Accept`, so the hook chooses it.
"""

import json
import zlib

import schemathesis
from schemathesis import GenerationMode

METADATA = ("x-goog-pubsub-", "ce-")
SUBSCRIPTION = "X-Goog-Pubsub-Subscription-Name"
ACCEPTED = ["*/*", "text/event-stream", "application/x-ndjson", "application/json"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path.startswith("/push"):
        before_push(case)
    elif case.operation.path.startswith("/publish"):
        before_publish(case)
    elif case.operation.path == "/events":
        before_events(case)


def before_push(case):
    case.query.pop("payload", None)
    for name in [name for name in case.headers if name.lower().startswith(METADATA)]:
        del case.headers[name]
    if case.media_type == "application/octet-stream":
        case.query["payload"] = "raw"
        case.headers[SUBSCRIPTION] = "projects/p/subscriptions/orders"


def before_publish(case):
    """Mends a valid request. A request that is to be invalid stays so."""
    query = case.query
    if is_negative(case):
        return
    if case.media_type == "application/json":
        query.clear()
        query["format"] = "pubsub"
        return
    query.pop("format", None)
    for name in [name for name in query if isinstance(query[name], str)]:
        query[name] = query[name][:250]


def is_negative(case):
    return case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE


def before_events(case):
    """Mends a valid request. A request that is to be invalid stays so."""
    query = case.query
    accept = ACCEPTED[zlib.crc32(repr(sorted(query)).encode()) % len(ACCEPTED)]
    case.headers.setdefault("Accept", accept)
    if "limit" in query or "wait" in query:
        query.setdefault("mode", "poll")
    if "mode" in query or accept not in ACCEPTED[:2]:
        if query.get("format") == "data":
            del query["format"]
    if "rewind" in query:
        query.pop("latest", None)
    if "mode" in query or case.headers["Accept"] == "application/json":
        query.pop("slow", None)
    if is_negative(case):
        # On the wire a null is the text null, which is the name of a topic.
        if "topic" in query and query["topic"] is None:
            query["topic"] = "!"
        return
    mend_presence(case)
    if query.get("filter"):
        query["filter"] = f"NOT attributes.customer = {json.dumps(query['filter'][:100])}"


def mend_presence(case):
    """Takes part in a topic only with a stream, and gives a name only without a token."""
    query = case.query
    if "mode" in query or case.headers["Accept"] == "application/json":
        query.pop("presence", None)
    if query.get("presence") == "on":
        query["topic"] = "orders"
    # With tokens, the name is that of the token.
    if query.get("presence") != "on" or "Authorization" in case.headers:
        query.pop("name", None)
