"""Hooks of schemathesis: what OpenAPI cannot say about a push.

The form of the body and the query and the headers depend on each other: a body of
`application/octet-stream` is data only with `payload=raw`, and a body of JSON is an envelope only
without it and without Pub/Sub's headers.
"""

import schemathesis

METADATA = "x-goog-pubsub-"
SUBSCRIPTION = "X-Goog-Pubsub-Subscription-Name"


@schemathesis.hook
def before_call(context, case, kwargs):
    if not case.operation.path.startswith("/push"):
        return
    case.query.pop("payload", None)
    for name in [name for name in case.headers if name.lower().startswith(METADATA)]:
        del case.headers[name]
    if case.media_type == "application/octet-stream":
        case.query["payload"] = "raw"
        case.headers[SUBSCRIPTION] = "projects/p/subscriptions/orders"
