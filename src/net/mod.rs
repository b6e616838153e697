//! Transport: connections, TLS, the PROXY protocol, HTTP/1.1, HTTP/2, and their limits.

pub(crate) mod accept;
pub(crate) mod heads;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod limiter;
pub(crate) mod proxy_protocol;
pub(crate) mod socket;
pub(crate) mod stall;
pub mod tls;
pub(crate) mod tls_stream;
