"""The paths that everything in front of the gateway lets through. A test compares the lists here with the
gateway's OpenAPI document; the rules of each front use them."""

from dataclasses import dataclass

# A stream is a response without end; a WebSocket is a connection; anything else is a short request.
STREAM, WEBSOCKET, REQUEST = "stream", "websocket", "request"


@dataclass(frozen=True)
class PublicPath:
    path: str  # As in the OpenAPI document.
    methods: tuple
    kind: str

    @property
    def example(self):
        return self.path.replace("{topic}", "orders")

    @property
    def beginning(self):
        """What stands before the topic, or nothing if the path names no topic."""
        return self.path.removesuffix("{topic}") if self.path.endswith("{topic}") else ""


PUBLIC_PATHS = [
    PublicPath("/events", ("GET", "HEAD", "OPTIONS"), STREAM),
    PublicPath("/presence/{topic}", ("GET", "HEAD", "OPTIONS"), REQUEST),
    PublicPath("/publish/{topic}", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/push", ("POST",), REQUEST),
    PublicPath("/push/{topic}", ("POST",), REQUEST),
    PublicPath("/renew", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/ticket", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/ws", ("GET",), WEBSOCKET),
]
# Health, metrics, documents of the interface, and the page of `dev`: nobody outside needs them.
INTERNAL_PATHS = {
    "/", "/asyncapi.json", "/health", "/healthz", "/metrics", "/openapi.json", "/page.css", "/page.js",
    "/page/origins", "/ready", "/readyz",
}
# Requests that no front passes on.
OTHER_REQUESTS = ("/metrics", "/healthz", "/pushes", "/publish", "/publish/", "/publish/a/b",
                  "/presence/", "/events/x", "/wsx", "/ws/x", "/tickets", "/")
