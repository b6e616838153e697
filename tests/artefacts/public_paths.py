"""The paths that everything in front of the gateway lets through. A test compares the lists here with the
gateway's OpenAPI document, and those of gRPC with its code; the rules of each front use them."""

from dataclasses import dataclass

# A stream is a response without end; a WebSocket is a connection; gRPC has streams over HTTP/2; anything else is
# a short request.
STREAM, WEBSOCKET, GRPC, REQUEST = "stream", "websocket", "grpc", "request"


@dataclass(frozen=True)
class PublicPath:
    path: str  # As in the OpenAPI document.
    methods: tuple
    kind: str

    @property
    def example(self):
        return self.path.replace("{topic}", "orders").replace("{method}", "Subscribe")

    @property
    def beginning(self):
        """What stands before the topic or the method, or nothing if the path names none."""
        return self.path.partition("{")[0] if "{" in self.path else ""


GRPC_PATHS = [PublicPath(f"/{service}/{{method}}", ("POST", "OPTIONS"), GRPC) for service in (
    "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    "stream_events.v1.StreamEvents")]
PUBLIC_PATHS = [
    PublicPath("/events", ("GET", "HEAD", "OPTIONS"), STREAM),
    PublicPath("/presence/{topic}", ("GET", "HEAD", "OPTIONS"), REQUEST),
    PublicPath("/publish/{topic}", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/push", ("POST",), REQUEST),
    PublicPath("/push/{topic}", ("POST",), REQUEST),
    PublicPath("/renew", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/ticket", ("POST", "OPTIONS"), REQUEST),
    PublicPath("/ws", ("GET",), WEBSOCKET),
    *GRPC_PATHS,
]
PUSH_PATHS = [path for path in PUBLIC_PATHS if path.path.startswith("/push")]


def public_paths(settings):
    """The paths that a gateway with these settings needs: one that pulls has no use for pushes."""
    pulls = settings.get("STREAM_EVENTS_PULL")
    return [path for path in PUBLIC_PATHS if not (pulls and path in PUSH_PATHS)]


# Health, metrics, documents of the interface, and the page for people: nobody outside needs them.
INTERNAL_PATHS = {
    "/", "/asyncapi.json", "/health", "/healthz", "/metrics", "/openapi.json", "/page/overview",
    "/page/{file}", "/ready", "/readyz",
}
# Requests that no front passes on.
OTHER_REQUESTS = ("/metrics", "/healthz", "/pushes", "/publish", "/publish/", "/publish/a/b",
                  "/presence/", "/grpc", "/grpc.channelz.v1.Channelz/GetServers",
                  "/grpc-health-v1-Health/Check", "/events/x", "/wsx", "/ws/x", "/tickets", "/")
