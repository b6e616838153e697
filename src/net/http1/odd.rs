//! Odd parts of requests, which the codec of actix leaves to its dispatcher: expectations and
//! upgrades.

use actix_http::{RequestHead, ServiceConfig, h1::Codec, h1::MessageType};
use actix_web::http::{
    ConnectionType, Method, Version,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
};
use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

use crate::net::http1::request_head::HeadError;

/// Checks that a request expects nothing but `100-continue`. Expectations of HTTP/1.0 are ignored
/// ([RFC 9110, section 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)).
///
/// # Errors
/// Fails for any other expectation.
pub(super) fn check_expectation(head: &RequestHead) -> Result<(), HeadError> {
    let is_known = head.version == Version::HTTP_10
        || head
            .headers
            .get_all(EXPECT)
            .all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue"));
    if is_known { Ok(()) } else { Err(HeadError::Expectation) }
}

/// Returns the codec with which an upgrade request is answered as if it asked for no upgrade, which
/// every server may do ([RFC 9110, section
/// 7.8](https://www.rfc-editor.org/rfc/rfc9110#section-7.8)). `None` for any other request. `codec`
/// has decoded `head`.
///
/// The codec of actix reads everything behind an upgrade to WebSocket as one body without an end,
/// and closes the connection after the answer to any upgrade. So another codec decodes a request
/// with the same method, version and body, and no upgrade. The handler still sees the upgrade in
/// the headers of the request, and could answer with 101 and take the socket over.
pub(super) fn codec_without_upgrade(
    codec: &Codec,
    config: &ServiceConfig,
    head: &RequestHead,
) -> Option<Codec> {
    let is_endless = codec.message_type() == MessageType::Stream && head.method != Method::CONNECT;
    if !codec.upgrade() && !is_endless {
        return None;
    }
    let is_closing = head.connection_type() == ConnectionType::Close;
    let connection = if is_closing { "connection: close\r\n" } else { "" };
    let line = format!("{} / {:?}\r\nhost: a\r\n{connection}", head.method, head.version);
    let mut plain = BytesMut::from(line.as_bytes());
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        if let Some(value) = head.headers.get(&name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                plain.extend_from_slice(part);
            }
        }
    }
    plain.extend_from_slice(b"\r\n");
    let mut codec = Codec::new(config.clone());
    codec.decode(&mut plain).ok().flatten().map(|_| codec)
}
