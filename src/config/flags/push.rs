//! Flags of pushes.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "push-auth",
        "off|oidc|none",
        None,
        "Who may push. off: no one, for a gateway that pulls (--pull). oidc: Pub/Sub, with a token of \
         your service account. none: anyone",
    )
    .main()
    .dev("none"),
    flag(
        "push-audience",
        "TEXT",
        Some(""),
        "Audience that a push token must have, exactly: the subscription's \
         --push-auth-token-audience, or the URL of its push endpoint if that is not set",
    )
    .main()
    .repeatable(),
    flag(
        "push-service-account",
        "EMAIL",
        Some(""),
        "Service account that a push token must come from: the subscription's \
         --push-auth-service-account",
    )
    .main()
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
        "Memory for all bodies being received, of pushes and of what clients publish, and for pulled \
         messages. Over this limit, a request gets 503, and no message is pulled",
    )
    .range("16 MiB", "1 TiB"),
];
