//! Table of all flags. The command line, the environment variables, the checks and the table in
//! README.md come from it.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "listen",
        "ADDR",
        Some("0.0.0.0:8080"),
        "Address and port of the public listener, for HTTP/1.1 and HTTP/2, without TLS unless \
         --tls-cert is given. A port alone (3000) keeps the default address. If PORT is set in the \
         environment (Cloud Run), it is the default port",
    )
    .dev("127.0.0.1:8080"),
    flag(
        "port",
        "PORT",
        Some(""),
        "Port of the public listener, on the default address. Give --port or --listen, not both",
    ),
    flag(
        "ops-listen",
        "ADDR|off",
        Some("0.0.0.0:9090"),
        "Address and port of the listener for /metrics, /healthz and /readyz. The public listener \
         answers /healthz and /readyz too",
    )
    .dev("off"),
    flag(
        "tls-cert",
        "FILE",
        Some(""),
        "File with the certificate chain (PEM). The public listener then speaks TLS only, with \
         HTTP/2 and HTTP/1.1. Needs --tls-key. The gateway reads both files once, at the start",
    ),
    flag("tls-key", "FILE", Some(""), "File with the private key (PEM) of --tls-cert"),
    flag(
        "proxy-protocol",
        "off|on",
        Some("off"),
        "on: a proxy that forwards TCP (nginx stream, HAProxy, a TCP load balancer) sends a PROXY \
         protocol header, version 1 or 2, on every connection. The gateway closes connections \
         without the header, also those of health checks",
    ),
    flag(
        "push-auth",
        "oidc|none",
        None,
        "Who may push. oidc: Pub/Sub, with a token of your service account. none: anyone",
    )
    .dev("none"),
    flag(
        "push-audience",
        "TEXT",
        Some(""),
        "Audience that a push token must have, exactly: the subscription's \
         --push-auth-token-audience, or the URL of its push endpoint if that is not set",
    )
    .repeatable(),
    flag(
        "push-service-account",
        "EMAIL",
        Some(""),
        "Service account that a push token must come from: the subscription's \
         --push-auth-service-account",
    )
    .repeatable(),
    flag(
        "push-jwks-url",
        "URL",
        Some("https://www.googleapis.com/oauth2/v3/certs"),
        "URL of the keys that sign push tokens. It must be https, or http on loopback",
    ),
    flag(
        "poison",
        "ack|nack",
        Some("ack"),
        "What to do with a message that can never be used. ack: count it, log it and drop it. \
         nack: refuse it; choose this only for a subscription with a dead-letter topic, because \
         refused messages slow the whole subscription",
    ),
    flag(
        "push-bytes-in-flight",
        "SIZE",
        Some("256 MiB"),
        "Memory for all bodies of pushes being received. Over this limit, a push gets 503",
    )
    .range("16 MiB", "1 TiB"),
    flag(
        "read-auth",
        "jwt|anonymous",
        None,
        "Who may read. jwt: readers with a valid token. anonymous: anyone",
    )
    .dev("anonymous"),
    flag(
        "read-jwks-url",
        "URL",
        Some(""),
        "URL of the keys that sign readers' tokens. It must be https, or http on loopback",
    ),
    flag(
        "read-key-file",
        "FILE",
        Some(""),
        "File with the one key of readers' tokens, instead of --read-jwks-url: a public key (PEM), \
         or a shared secret of at least 32 bytes for HS256",
    ),
    flag(
        "read-audience",
        "TEXT",
        Some(""),
        "Audience that a reader's token must have. Without this flag, any audience is accepted",
    )
    .repeatable(),
    flag(
        "read-issuer",
        "TEXT",
        Some(""),
        "Issuer that a reader's token must have. Without this flag, any issuer is accepted",
    )
    .repeatable(),
    flag(
        "read-cookie",
        "NAME",
        Some(""),
        "Cookie that may hold a reader's token. EventSource can send a cookie, but no header. \
         Pages of other sites may use it only if --cors-origin lists them",
    ),
    flag(
        "read-topics-claim",
        "NAME",
        Some("topics"),
        "Claim of a reader's token that lists its topics: names, prefix.* or *. a.b is claim b in \
         a",
    ),
    flag(
        "cors-origin",
        "ORIGIN",
        Some(""),
        "Origin of web pages that may read, such as https://app.example.com or \
         https://*.example.com, with cookies too. Without this flag, all pages may read, but \
         without cookies",
    )
    .repeatable(),
    flag("topic", "NAME", Some(""), "Topic to serve. Without this flag, all topics are served")
        .repeatable(),
    flag("ring-events", "N", Some("1024"), "Events held for replay, for each topic")
        .range("1", "10000000"),
    flag("ring-bytes", "SIZE", Some("32 MiB"), "Bytes held for replay, for each topic")
        .range("16 MiB", "1 TiB"),
    flag("ring-age", "TIME", Some("15 min"), "How long an event is held for replay")
        .range("1 s", "168 h"),
    flag(
        "ring-bytes-total",
        "SIZE",
        Some("512 MiB"),
        "Bytes held for replay, for all topics together. Over it, the oldest events are dropped",
    )
    .range("128 MiB", "1 TiB"),
    flag(
        "topics-max",
        "N",
        Some("10000"),
        "Topics held at once. Over this limit, the topic that was idle for longest is dropped",
    )
    .range("1", "1000000"),
    flag(
        "dedup-age",
        "TIME",
        Some("30 min"),
        "How long a message id is remembered, so that a message that Pub/Sub sends again is not \
         shown twice. At least --ring-age",
    )
    .range("1 s", "168 h"),
    flag("dedup-ids", "N", Some("100000"), "Message ids remembered, for each topic")
        .range("1", "10000000"),
    flag(
        "dedup-ids-total",
        "N",
        Some("2000000"),
        "Message ids remembered, for all topics together",
    )
    .range("1", "1000000000"),
    flag(
        "backplane",
        "local|URL",
        Some("local"),
        "Where events are stored. local: in this process, for one replica only. A URL such as \
         redis://10.0.0.3:6379/0: in Redis or Valkey, for several replicas. rediss:// uses TLS",
    ),
    flag("redis-ca", "FILE", Some(""), "Certificates (PEM) to check a rediss:// server against"),
    flag("redis-user", "NAME", Some(""), "User name for the Redis server"),
    flag(
        "redis-password-file",
        "FILE",
        Some(""),
        "File with the password for the Redis server. The gateway reads it for each connection, so \
         the password can change while the gateway runs",
    ),
    flag("redis-password", "TEXT", Some(""), "Password for the Redis server").secret(),
    flag(
        "redis-prefix",
        "NAME",
        Some("stream-events"),
        "Prefix of all keys in Redis. Gateways with different prefixes can share a Redis server",
    ),
    flag("log-age", "TIME", Some("15 min"), "How long Redis keeps an event")
        .range("1 min", "168 h"),
    flag("log-events", "N", Some("1000000"), "Events that Redis keeps, for all topics together")
        .range("1000", "1000000000"),
    flag(
        "log-bytes",
        "SIZE",
        Some("512 MiB"),
        "Memory that Redis may use for events. The gateway checks it every 5 s",
    )
    .range("64 MiB", "1 TiB"),
    flag(
        "subscribers-max",
        "N",
        Some("20000"),
        "Open streams at once. Over this limit, readers are asked to come back later",
    )
    .range("1", "1000000"),
    flag(
        "followed-bytes-max",
        "SIZE",
        Some("64 MiB"),
        "Memory for the topics and filters of all streams: 512 bytes for each different combination \
         of topics, filter and format on each worker, 160 bytes and its name for each topic in it, \
         and five times the length of the filter. Over this limit, readers are asked to come back \
         later",
    )
    .range("64 KiB", "1 TiB"),
    flag(
        "filters-max",
        "N",
        Some("1000"),
        "Different combinations of filter, topics and format that the streams of each worker may \
         have. Over this limit, readers are asked to come back later",
    )
    .range("0", "100000"),
    flag(
        "streams-per-subject",
        "N",
        Some("100"),
        "Open streams for each subject (sub) of readers' tokens, on one replica. A token \
         without a subject counts for itself. 0: no limit",
    )
    .range("0", "1000000"),
    flag(
        "streams-per-address",
        "N",
        Some("0"),
        "Open streams for each client address, on one replica. 0: no limit. Behind proxies, set \
         --trusted-proxies too, or all clients count as one address",
    )
    .range("0", "1000000"),
    flag(
        "requests-per-address",
        "N",
        Some("0"),
        "Requests per second to /events, /ticket and /renew, for each client address. 0: no limit. \
         Behind proxies, set --trusted-proxies too",
    )
    .range("0", "1000000"),
    flag(
        "push-failures-per-address",
        "N",
        Some("100"),
        "Pushes per second with an unknown or bad token, for each client address. 0: no limit",
    )
    .range("0", "1000000"),
    flag(
        "tickets-per-subject",
        "N",
        Some("10"),
        "Tickets per second, for each subject of readers' tokens. A token without a subject \
         counts for itself. 0: no limit. A subject has at most 500 unused tickets",
    )
    .range("0", "1000000"),
    flag(
        "connections-per-address",
        "N",
        Some("0"),
        "Open connections, for each address that connects, which may be a proxy's. 0: no limit",
    )
    .range("0", "1000000"),
    flag(
        "idle-connections-max",
        "N",
        Some("4096"),
        "Connections of each worker beyond its share of --subscribers-max: pushes, probes and idle \
         connections. Over the sum of both, new connections are closed. When more than half of N \
         have no stream, connections that were idle for 1 s are closed",
    )
    .range("16", "1000000"),
    flag(
        "trusted-proxies",
        "N",
        Some("0"),
        "Number of proxies in front that add an address to X-Forwarded-For. Google's load balancer \
         counts as 2. The Nth address from the right is the client's",
    )
    .range("0", "16"),
    flag("topics-per-stream", "N", Some("1000"), "Topics that one reader may name")
        .range("1", "100000"),
    flag(
        "head-bytes-max",
        "SIZE",
        Some("32 KiB"),
        "Largest head of a request: its first line and headers. Pushes may have 128 KiB",
    )
    .range("1 KiB", "128 KiB"),
    flag("query-bytes-max", "SIZE", Some("16 KiB"), "Largest query of a request, except of pushes")
        .range("256 B", "64 KiB"),
    flag("http2-streams-max", "N", Some("1000"), "Concurrent requests on one HTTP/2 connection")
        .range("1", "100000"),
    flag(
        "handshake-timeout",
        "TIME",
        Some("5 s"),
        "Time that a new connection has for its PROXY header, TLS handshake and first bytes",
    )
    .range("100 ms", "5 min"),
    flag(
        "header-timeout",
        "TIME",
        Some("5 s"),
        "Time that a client has to send the head of a request",
    )
    .range("100 ms", "5 min"),
    flag(
        "body-timeout",
        "TIME",
        Some("60 s"),
        "Time that a push has to send its body. Pub/Sub's ack deadline is 10 s by default",
    )
    .range("1 s", "10 min"),
    flag(
        "keep-alive",
        "TIME",
        Some("15 s"),
        "Silence after which the gateway sends a comment, so that no proxy closes the stream",
    )
    .range("1 s", "10 min"),
    flag(
        "stream-age-max",
        "TIME",
        Some("55 min"),
        "Longest life of a stream. Each stream ends at a random 80 to 100 % of it (Cloud Run cuts \
         streams at 60 min)",
    )
    .range("1 s", "24 h"),
    flag(
        "write-timeout",
        "TIME",
        Some("30 s"),
        "Time that a reader may take no bytes. Then the gateway ends its stream",
    )
    .range("1 s", "1 h"),
    flag(
        "drain-delay",
        "TIME",
        Some("0 s"),
        "Time that the gateway goes on serving after SIGTERM. /readyz answers 503 at once; a load \
         balancer needs this time to notice (Kubernetes: 10 s)",
    )
    .range("0 s", "10 min"),
    flag(
        "drain-timeout",
        "TIME",
        Some("8 s"),
        "Time over which streams end after --drain-delay. Then the gateway closes the connections \
         that are still open (Cloud Run kills after 10 s; Kubernetes: 20 s)",
    )
    .dev("0 s")
    .range("0 s", "1 h"),
    flag(
        "coalesce-max",
        "TIME",
        Some("5 ms"),
        "Longest time that an overloaded worker waits before it writes, so that several events \
         share a write. 0 ms: never",
    )
    .range("0 ms", "1 s"),
    flag("workers", "N", Some("0"), "Threads that serve connections. 0: one for each core")
        .range("0", "1024"),
    flag("log-format", "json|text", Some("json"), "json: for Cloud Logging. text: for people")
        .dev("text"),
    flag(
        "log-level",
        "FILTER",
        Some("info"),
        "error, warn, info, debug or trace, also for a module: info,stream_events::inlet=debug",
    ),
];
