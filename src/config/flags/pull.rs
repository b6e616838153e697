//! Flags of streaming pull.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "pull",
        "SUBSCRIPTION[=TOPIC]",
        Some(""),
        "Subscription to pull messages from, as in projects/P/subscriptions/S, and the topic of its \
         events, which is S if none is given. For gateways that Pub/Sub cannot push to. Needs a \
         build with the feature pull, which the image has",
    )
    .repeatable(),
    flag(
        "pull-endpoint",
        "URL",
        Some("https://pubsub.googleapis.com"),
        "Where --pull reaches Pub/Sub, such as https://private.googleapis.com. http:// connects \
         without TLS and without credentials, as to an emulator. PUBSUB_EMULATOR_HOST changes the \
         default",
    ),
    flag(
        "pull-messages",
        "N",
        Some("1000"),
        "Messages of one subscription of --pull that are received and not acked yet, at once",
    )
    .range("1", "100000"),
];
