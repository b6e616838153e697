//! Flags of limits.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "subscribers-max",
        "N",
        Some("20000"),
        "Open streams at once. Over this limit, readers are asked to come back later",
    )
    .main()
    .range("1", "1000000"),
    flag(
        "followed-bytes-max",
        "SIZE",
        Some("64 MiB"),
        "Memory for the topics and filters of all streams: 512 bytes for each different combination \
         of topics, filter and format on each worker, 160 bytes and its name for each topic in it, \
         and 3 KiB and five times its length for a filter. Over this limit, readers are asked to \
         come back later",
    )
    .range("64 KiB", "1 TiB"),
    flag(
        "filters-max",
        "N",
        Some("1000"),
        "Different filters that the streams of each worker may have. Over this limit, readers are \
         asked to come back later",
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
        "Requests per second to /events, /ws, /presence, /ticket, /renew and gRPC, for each client \
         address. 0: no limit. Behind proxies, set --trusted-proxies too",
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
];
