//! Tests of `src/net`: HTTP/1.1, HTTP/2, TLS and proxies in front.

pub mod http2;
mod odd_requests;
mod pipelines;
mod proxied_grpc;
mod proxied_reads;
mod proxied_websockets;
pub mod proxies;
mod proxy_protocol;
mod tls;
