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
        "URL of Pub/Sub for --pull, such as https://private.googleapis.com. With http:// the \
         gateway uses neither TLS nor credentials, as for an emulator. PUBSUB_EMULATOR_HOST \
         changes the default",
    ),
    flag(
        "pull-messages",
        "N",
        Some("1000"),
        "Largest number of messages of one subscription of --pull that are received and not acked \
         yet",
    )
    .range("1", "100000"),
];
