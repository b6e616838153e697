//! Flags of the events that one process holds.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag("topic", "NAME", Some(""), "Topic to serve. Without this flag, all topics are served")
        .main()
        .repeatable(),
    flag("ring-events", "N", Some("1024"), "Events held for replay, for each topic")
        .range("1", "10000000"),
    flag("ring-bytes", "SIZE", Some("32 MiB"), "Bytes held for replay, for each topic")
        .range("16 MiB", "1 TiB"),
    flag("ring-age", "TIME", Some("15 min"), "How long an event is held for replay")
        .main()
        .range("1 s", "168 h"),
    flag(
        "ring-bytes-total",
        "SIZE",
        Some("512 MiB"),
        "Bytes held for replay, for all topics together. Over it, the oldest events are dropped",
    )
    .main()
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
];
