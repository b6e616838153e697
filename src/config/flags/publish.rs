//! Flags of publishing.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "publish-auth",
        "off|jwt|none",
        Some("off"),
        "Who may publish (POST /publish). off: no one. jwt: clients with a token whose claim publish \
         grants the topic; the flags for readers' tokens name its keys and checks. none: anyone",
    )
    .main()
    .dev("none"),
    flag(
        "publishes-per-subject",
        "N",
        Some("1000"),
        "Messages per second that each subject (sub) may publish, on one replica. 0: no limit",
    )
    .range("0", "1000000"),
    flag(
        "publishes-per-address",
        "N",
        Some("0"),
        "Messages per second that each client address may publish, on one replica. 0: no limit. \
         Behind proxies, set --trusted-proxies too",
    )
    .range("0", "1000000"),
];
