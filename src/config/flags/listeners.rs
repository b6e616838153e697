//! Flags of the listeners.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "listen",
        "ADDR",
        Some("0.0.0.0:8080"),
        "Address and port of the public listener, for HTTP/1.1 and HTTP/2, without TLS unless \
         --tls-cert is given. A port alone (3000) keeps the default address. If PORT is set in the \
         environment (Cloud Run), it is the default port",
    )
    .main()
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
    .main()
    .dev("off"),
    flag(
        "tls-cert",
        "FILE",
        Some(""),
        "File with the certificate chain (PEM). The public listener then speaks TLS only, with \
         HTTP/2 and HTTP/1.1. Needs --tls-key. The gateway reads both files once, at the start",
    )
    .main(),
    flag("tls-key", "FILE", Some(""), "File with the private key (PEM) of --tls-cert").main(),
    flag(
        "proxy-protocol",
        "off|on",
        Some("off"),
        "on: a proxy that forwards TCP (nginx stream, HAProxy, a TCP load balancer) sends a PROXY \
         protocol header, version 1 or 2, on every connection. The gateway closes connections \
         without the header, also those of health checks",
    ),
];
