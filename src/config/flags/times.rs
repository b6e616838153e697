//! Flags of times.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
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
        "Time that a request has to send its body. Pub/Sub's ack deadline is 10 s by default",
    )
    .range("1 s", "10 min"),
    flag(
        "keep-alive",
        "TIME",
        Some("15 s"),
        "Silence after which the gateway sends a comment, or a ping on a WebSocket, so that no proxy \
         closes the stream",
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
        "presence-grace",
        "TIME",
        Some("10 s"),
        "Time for which a member of a topic (presence=on) whose last stream has ended stays a member, \
         since it may reconnect",
    )
    .range("0 s", "10 min"),
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
    .main()
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
];
