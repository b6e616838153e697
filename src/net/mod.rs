//! Transport: connections, TLS, the PROXY protocol, HTTP/1.1, HTTP/2, and their limits.

pub mod accept;
pub mod heads;
pub mod http1;
pub mod http2;
pub mod limiter;
pub mod proxy_protocol;
pub mod socket;
pub mod stall;
pub mod tls;
pub mod tls_stream;
