//! The table of all knobs: the command line, the environment and the checks come from it.

use super::knob::{Knob, knob};

/// All knobs, in the order of the help.
pub const KNOBS: &[Knob] = &[
    knob(
        "listen",
        "ADDR",
        Some("0.0.0.0:8080"),
        "Public listener: HTTP/1.1 and, on the same port, HTTP/2 without TLS. PORT in the \
         environment sets the port of the default",
    )
    .dev("127.0.0.1:8080"),
    knob(
        "port",
        "PORT",
        Some(""),
        "Port of the public listener, on the default address. Give --port or --listen, not both",
    ),
    knob(
        "ops-listen",
        "ADDR|off",
        Some("0.0.0.0:9090"),
        "Listener for /metrics, /healthz and /readyz; health is also on the public one",
    )
    .dev("off"),
    knob(
        "tls-cert",
        "FILE",
        Some(""),
        "Certificate chain (PEM) for the public listener: it then speaks only TLS, with HTTP/2 and \
         HTTP/1.1 by ALPN. Wants --tls-key. Read once, at the start",
    ),
    knob("tls-key", "FILE", Some(""), "Private key (PEM) of --tls-cert"),
    knob(
        "proxy-protocol",
        "off|on",
        Some("off"),
        "on: a proxy that passes bytes on (nginx stream, HAProxy, a TCP load balancer) is in front \
         and begins every public connection with the PROXY protocol, version 1 or 2; connections \
         without it are ended, health checks too",
    ),
    knob(
        "push-auth",
        "oidc|none",
        None,
        "Who may push: oidc takes only Pub/Sub's token of your service account, none takes anyone",
    )
    .dev("none"),
    knob(
        "push-audience",
        "TEXT",
        Some(""),
        "Audience that a push token must be for, to the letter: the subscription's \
         --push-auth-token-audience, or its endpoint URL when that is not set",
    )
    .many(),
    knob(
        "push-service-account",
        "EMAIL",
        Some(""),
        "Service account that a push token must be of: the subscription's \
         --push-auth-service-account",
    )
    .many(),
    knob(
        "push-jwks-url",
        "URL",
        Some("https://www.googleapis.com/oauth2/v3/certs"),
        "Key set of the push tokens' issuer; https, or http on loopback",
    ),
    knob(
        "poison",
        "ack|nack",
        Some("ack"),
        "A message that can never be used: ack drops it (counted and logged), because nacks slow \
         the whole subscription; nack is for a subscription with a dead-letter topic",
    ),
    knob(
        "push-bytes-in-flight",
        "SIZE",
        Some("256 MiB"),
        "Bodies being received, over all pushes; beyond it pushes are answered 503",
    )
    .from("16 MiB", "1 TiB"),
    knob(
        "read-auth",
        "jwt|anonymous",
        None,
        "Who may open /events: jwt takes only readers with a token, anonymous takes anyone",
    )
    .dev("anonymous"),
    knob(
        "read-jwks-url",
        "URL",
        Some(""),
        "Key set of the issuer of readers' tokens; https, or http on loopback",
    ),
    knob(
        "read-key-file",
        "FILE",
        Some(""),
        "Instead of --read-jwks-url, the one key of readers' tokens: a public key (PEM), or a secret \
         of at least 32 bytes that the issuer shares, for HS256",
    ),
    knob(
        "read-audience",
        "TEXT",
        Some(""),
        "Audience that a reader's token must be for; any if none is given",
    )
    .many(),
    knob(
        "read-issuer",
        "TEXT",
        Some(""),
        "Issuer that a reader's token must be of; any that has the key if none is given",
    )
    .many(),
    knob(
        "read-cookie",
        "NAME",
        Some(""),
        "Cookie in which a reader's token may come, for EventSource, which can send no header",
    ),
    knob(
        "read-topics-claim",
        "NAME",
        Some("topics"),
        "Claim that lists the topics that a token grants, each a name, prefix.* or *; with dots for a \
         claim within another",
    ),
    knob(
        "cors-origin",
        "ORIGIN",
        Some(""),
        "Pages that may read, as in https://app.example.com or https://*.example.com, with cookies \
         too; any, without cookies, if none is given",
    )
    .many(),
    knob("topic", "NAME", Some(""), "The only topics that are served; any if none is given").many(),
    knob("ring-events", "N", Some("1024"), "Events held for replay, per topic")
        .from("1", "10000000"),
    knob("ring-bytes", "SIZE", Some("32 MiB"), "Bytes held for replay, per topic")
        .from("16 MiB", "1 TiB"),
    knob("ring-age", "TIME", Some("15 min"), "How long an event is held for replay")
        .from("1 s", "168 h"),
    knob(
        "ring-bytes-total",
        "SIZE",
        Some("512 MiB"),
        "Bytes held over all topics; the oldest events go first",
    )
    .from("128 MiB", "1 TiB"),
    knob(
        "topics-max",
        "N",
        Some("10000"),
        "Topics held at once; beyond it the one that was quiet for longest is forgotten",
    )
    .from("1", "1000000"),
    knob(
        "dedup-age",
        "TIME",
        Some("30 min"),
        "How long a message id is remembered, so that a redelivery is not shown twice; not below \
         --ring-age",
    )
    .from("1 s", "168 h"),
    knob("dedup-ids", "N", Some("100000"), "Message ids remembered, per topic")
        .from("1", "10000000"),
    knob("dedup-ids-total", "N", Some("2000000"), "Message ids remembered over all topics")
        .from("1", "1000000000"),
    knob(
        "backplane",
        "local|URL",
        Some("local"),
        "Where events are kept: local is this process, for one replica; several share a Redis or \
         Valkey, as in redis://10.0.0.3:6379/0 (rediss:// is with TLS)",
    ),
    knob(
        "redis-ca",
        "FILE",
        Some(""),
        "Certificates (PEM) that a rediss:// server's is checked against, instead of the system's",
    ),
    knob("redis-user", "NAME", Some(""), "User of the Redis server, if it has users"),
    knob(
        "redis-password-file",
        "FILE",
        Some(""),
        "Password of the Redis server. Read for each connection, so it can be changed",
    ),
    knob("redis-password", "TEXT", Some(""), "Password of the Redis server").secret(),
    knob(
        "redis-prefix",
        "NAME",
        Some("stream-events"),
        "Begins the names of all keys, so that several gateways can share a Redis server",
    ),
    knob("log-age", "TIME", Some("15 min"), "How long Redis keeps an event").from("1 min", "168 h"),
    knob("log-events", "N", Some("1000000"), "Events that Redis keeps, over all topics")
        .from("1000", "1000000000"),
    knob(
        "log-bytes",
        "SIZE",
        Some("512 MiB"),
        "Memory that Redis may use for events; looked at every 5 s",
    )
    .from("64 MiB", "1 TiB"),
    knob(
        "subscribers-max",
        "N",
        Some("20000"),
        "Streams open at once; beyond it readers are told to come back later",
    )
    .from("1", "1000000"),
    knob(
        "streams-per-subject",
        "N",
        Some("100"),
        "Streams open at once of one subject of readers' tokens (sub), on one replica; 0: any number",
    )
    .from("0", "1000000"),
    knob(
        "streams-per-address",
        "N",
        Some("0"),
        "Streams open at once of one client address, on one replica; 0: any number. Behind proxies \
         it wants --trusted-proxies, or they are all one address",
    )
    .from("0", "1000000"),
    knob(
        "requests-per-address",
        "N",
        Some("0"),
        "Requests per second of one client address to /events, /ticket and /renew; 0: any number. \
         Behind proxies it wants --trusted-proxies",
    )
    .from("0", "1000000"),
    knob(
        "push-failures-per-address",
        "N",
        Some("100"),
        "Pushes per second of one address whose token is not known yet to be good; 0: any number",
    )
    .from("0", "1000000"),
    knob(
        "tickets-per-subject",
        "N",
        Some("10"),
        "Tickets per second of one subject of readers' tokens; 0: any number",
    )
    .from("0", "1000000"),
    knob(
        "connections-per-address",
        "N",
        Some("0"),
        "Connections at once of one address that connects, which may be a proxy's; 0: any number",
    )
    .from("0", "1000000"),
    knob(
        "connections-beside-streams",
        "N",
        Some("4096"),
        "Connections of each worker without a stream: pushes, probes, idle ones. When half are used, \
         those that were idle for a second are closed",
    )
    .from("16", "1000000"),
    knob(
        "trusted-proxies",
        "N",
        Some("0"),
        "Proxies in front that each add the address they see to X-Forwarded-For (Google's load \
         balancer counts as 2); the client's is so many from the right",
    )
    .from("0", "16"),
    knob("topics-per-stream", "N", Some("1000"), "Topics that one reader may name")
        .from("1", "100000"),
    knob(
        "head-bytes-max",
        "SIZE",
        Some("32 KiB"),
        "The head of a request, but for pushes: theirs may have 128 KiB of attributes",
    )
    .from("1 KiB", "128 KiB"),
    knob("query-bytes-max", "SIZE", Some("16 KiB"), "The query of a request, but for pushes")
        .from("256 B", "64 KiB"),
    knob("http2-streams-max", "N", Some("1000"), "Requests at once on one HTTP/2 connection")
        .from("1", "100000"),
    knob(
        "hello-time",
        "TIME",
        Some("5 s"),
        "A new connection has so long for its PROXY protocol header and TLS handshake, or its first \
         bytes",
    )
    .from("100 ms", "5 min"),
    knob("head-time", "TIME", Some("5 s"), "A request's head has to come in within this")
        .from("100 ms", "5 min"),
    knob(
        "body-time",
        "TIME",
        Some("60 s"),
        "A push's body has to come in within this (Pub/Sub gives up after the ack deadline: 10 s by \
         default)",
    )
    .from("1 s", "10 min"),
    knob(
        "keep-alive",
        "TIME",
        Some("15 s"),
        "Silence after which a stream is given a comment, so that no proxy takes it for dead",
    )
    .from("1 s", "10 min"),
    knob(
        "stream-age-max",
        "TIME",
        Some("55 min"),
        "Each stream ends at a random 80 to 100 % of this, before the platform cuts it (Cloud Run: \
         60 min)",
    )
    .from("1 s", "24 h"),
    knob("stall", "TIME", Some("30 s"), "A reader whose socket takes nothing for so long is ended")
        .from("1 s", "1 h"),
    knob(
        "drain-delay",
        "TIME",
        Some("0 s"),
        "After SIGTERM the gateway is unready at once, but serves for so long: the time a load \
         balancer takes to notice (Kubernetes: 10 s)",
    )
    .from("0 s", "10 min"),
    knob(
        "drain",
        "TIME",
        Some("8 s"),
        "Then streams end spread over this, and what is left is closed by force (Cloud Run kills \
         after 10 s; Kubernetes: 20 s)",
    )
    .dev("0 s")
    .from("0 s", "1 h"),
    knob(
        "join-max",
        "TIME",
        Some("5 ms"),
        "A worker that has new events before it has written the last to all waits for as long as \
         that took, at most this, so that more events share a write; 0 ms: never",
    )
    .from("0 ms", "1 s"),
    knob(
        "lean-streams",
        "on|off",
        Some("on"),
        "on: streams over plain HTTP/1.1 have neither a task nor buffers, some 0.5 KB each; off: they \
         are served by actix, as those over TLS, some 12 KB each",
    ),
    knob("workers", "N", Some("0"), "Threads that serve connections; 0 is one per core")
        .from("0", "1024"),
    knob("log-format", "json|text", Some("json"), "json is Cloud Logging's").dev("text"),
    knob(
        "log-level",
        "FILTER",
        Some("info"),
        "error, warn, info, debug or trace, also per module: info,stream_events::inlet=debug",
    ),
];
