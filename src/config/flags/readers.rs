//! Flags of readers: their tokens, and the pages that may read.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "read-auth",
        "jwt|anonymous",
        None,
        "Who may read. jwt: readers with a valid token. anonymous: anyone",
    )
    .main()
    .dev("anonymous"),
    flag(
        "read-jwks-url",
        "URL",
        Some(""),
        "URL of the keys that sign readers' tokens. It must be https, or http on loopback",
    )
    .main(),
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
        "page",
        "off|on",
        Some("off"),
        "on: GET / answers with a page that shows events as they arrive, and topics and streams. \
         Readers that need a token enter it there",
    )
    .dev("on"),
    flag(
        "cors-origin",
        "ORIGIN",
        Some(""),
        "Origin of web pages that may read, such as https://app.example.com or \
         https://*.example.com, with cookies too. Without this flag, all pages may read, but \
         without cookies",
    )
    .main()
    .repeatable(),
];
