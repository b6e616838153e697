//! Flags of the log in Redis.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "backplane",
        "local|URL",
        Some("local"),
        "Where events are stored. local: in this process, for one replica only. A URL such as \
         redis://10.0.0.3:6379/0: in Redis or Valkey, for several replicas. rediss:// uses TLS",
    )
    .main(),
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
];
