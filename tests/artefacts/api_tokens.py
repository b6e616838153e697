"""A gateway that wants readers' tokens, and such tokens."""

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import tempfile
import time

import gateway


def reader_token(secret, lasts=3600):
    """A token that grants all topics, for this number of seconds."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    claims = {"sub": "alice", "exp": int(time.time()) + lasts, "topics": ["*"]}
    head = {"alg": "HS256", "typ": "JWT"}
    text = b".".join(part(json.dumps(json_part).encode()) for json_part in (head, claims))
    return (text + b"." + part(hmac.digest(secret, text, hashlib.sha256))).decode()


@contextlib.contextmanager
def gateway_with_tokens(settings):
    """Starts a gateway that checks tokens of readers and of pushes; gives its URL and the readers' key."""
    secret = secrets.token_hex(32).encode()
    with tempfile.NamedTemporaryFile() as key, gateway.issuer() as keys:
        key.write(secret)
        key.flush()
        tokens = settings | {
            "STREAM_EVENTS_READ_AUTH": "jwt", "STREAM_EVENTS_READ_KEY_FILE": key.name,
            "STREAM_EVENTS_TICKETS_PER_SUBJECT": "0", "STREAM_EVENTS_PUSH_AUTH": "oidc",
            "STREAM_EVENTS_PUSH_JWKS_URL": keys, "STREAM_EVENTS_PUSH_AUDIENCE": "a",
            "STREAM_EVENTS_PUSH_SERVICE_ACCOUNT": "a@b.iam.gserviceaccount.com"}
        with gateway.gateway(["serve"], tokens) as (_, url, _):
            yield url, secret
