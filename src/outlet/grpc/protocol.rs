//! Protocol of a call: gRPC over HTTP/2, or gRPC-Web
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>) over any version of HTTP.

use std::time::Duration;

use actix_http::RequestHead;
use actix_web::http::{Method, header};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    message::put_prefix,
    status::{Code, Status},
};

/// Protocol of a call, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The status is in the trailers of HTTP/2.
    Grpc,
    /// The status is at the end of the body.
    Web,
    /// As [`Protocol::Web`], and the body is base64.
    WebText,
}

/// Beginning of the content types of all protocols.
const PREFIX: &str = "application/grpc";
/// Flag of the last part of a body of gRPC-Web, which has the status.
const STATUS_FLAG: u8 = 0x80;

impl Protocol {
    /// Returns the protocol of a request, or `None` if its content type is another one.
    pub(super) fn of(head: &RequestHead) -> Option<Self> {
        let text = head.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
        let text = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Some(match text.strip_suffix("+proto").unwrap_or(&text) {
            "application/grpc" => Self::Grpc,
            "application/grpc-web" => Self::Web,
            "application/grpc-web-text" => Self::WebText,
            _ => return None,
        })
    }

    /// Returns the content type of the answer.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text+proto",
        }
    }

    /// Returns the body of a request as it was before its encoding.
    ///
    /// # Errors
    /// Fails when it is not base64.
    pub(super) fn decode(self, body: Bytes) -> Result<Bytes, Status> {
        if self != Self::WebText {
            return Ok(body);
        }
        // Each part of a body can have padding of its own.
        let parts = body.split_inclusive(|byte| *byte == b'=').filter(|part| *part != b"=");
        let mut out = BytesMut::new();
        for part in parts {
            let part = part.strip_suffix(b"=").unwrap_or(part);
            let bytes = STANDARD_NO_PAD.decode(part).map_err(|err| {
                Status::new(Code::InvalidArgument, format!("the body is not base64: {err}"))
            })?;
            out.put_slice(&bytes);
        }
        Ok(out.freeze())
    }

    /// Encodes a part of the body of an answer.
    pub(super) fn encode(self, part: Bytes) -> Bytes {
        if self == Self::WebText { STANDARD.encode(&part).into() } else { part }
    }

    /// Returns the last part of a body of gRPC-Web.
    pub(super) fn end(self, status: &Status) -> Bytes {
        let lines = status.headers().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        let mut out = BytesMut::new();
        put_prefix(&mut out, STATUS_FLAG, lines.len());
        out.put_slice(lines.as_bytes());
        self.encode(out.freeze())
    }
}

/// Returns true if a request is of gRPC or gRPC-Web, also in an encoding that is not known here.
pub(crate) fn is_grpc(head: &RequestHead) -> bool {
    let content_type = head.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(PREFIX.as_bytes()))
}

/// Returns true if a request can be a call, also of a service that does not exist, or if it is the
/// preflight of a call from a page (gRPC-Web).
pub(crate) fn is_call(head: &RequestHead) -> bool {
    if head.method != Method::OPTIONS {
        return head.method == Method::POST && is_grpc(head);
    }
    let asked = head.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let names = asked.and_then(|names| names.to_str().ok()).unwrap_or_default();
    names.split(',').any(|name| name.trim().eq_ignore_ascii_case("x-grpc-web"))
}

/// Returns true if the answer to a request has trailers: the request is of gRPC.
pub(crate) fn has_trailers(head: &RequestHead) -> bool {
    is_grpc(head) && Protocol::of(head) == Some(Protocol::Grpc)
}

/// Returns the time that a client waits for its call (`grpc-timeout`), or `None` if it has no
/// limit.
///
/// # Errors
/// Fails when the header is malformed.
pub(super) fn timeout(head: &RequestHead) -> Result<Option<Duration>, Status> {
    let Some(value) = head.headers().get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let is_number =
            (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let count: u64 = is_number.then(|| digits.parse().ok()).flatten()?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3_600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    let text = "grpc-timeout: expected at most 8 digits and a unit, as in 10S";
    parsed.map(Some).ok_or_else(|| Status::new(Code::InvalidArgument, text))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn head(name: &'static str, value: &'static str) -> actix_web::HttpRequest {
        TestRequest::default().insert_header((name, value)).to_http_request()
    }

    #[test]
    fn protocols_are_known_by_their_content_types() {
        for (text, protocol) in [
            ("application/grpc", Some(Protocol::Grpc)),
            ("application/grpc+proto", Some(Protocol::Grpc)),
            ("Application/gRPC-Web+proto; charset=utf-8", Some(Protocol::Web)),
            ("application/grpc-web-text", Some(Protocol::WebText)),
            ("application/grpc+json", None),
            ("application/grpc-wide", None),
            ("application/json", None),
        ] {
            assert_eq!(Protocol::of(head("content-type", text).head()), protocol, "{text}");
        }
    }

    #[test]
    fn timeouts_have_a_unit() {
        for (text, timeout_of_it) in [
            ("1H", Duration::from_secs(3_600)),
            ("99999999M", Duration::from_secs(99_999_999 * 60)),
            ("2S", Duration::from_secs(2)),
            ("20m", Duration::from_millis(20)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(timeout(head("grpc-timeout", text).head()), Ok(Some(timeout_of_it)));
        }
        for bad in ["", "1", "S", "123456789S", "+1S", "1 S", "1s", "-1S", "ä"] {
            assert!(timeout(head("grpc-timeout", bad).head()).is_err(), "{bad}");
        }
        assert_eq!(timeout(head("x", "1S").head()), Ok(None));
    }

    #[test]
    fn text_is_base64_in_parts() {
        let text = |body: &'static [u8]| Protocol::WebText.decode(Bytes::from_static(body));
        for (body, bytes) in [
            (&b"AAAA"[..], &[0, 0, 0][..]),
            (b"AA==AAE=", &[0, 0, 1]),
            (b"AA==AAAA", &[0; 4]),
            (b"", b""),
        ] {
            assert_eq!(text(body).unwrap(), bytes);
        }
        assert!(text(b"A").is_err());
        assert!(text(b"A A=").is_err());
        assert_eq!(Protocol::Web.decode(Bytes::from_static(b"=")).unwrap(), "=");
    }
}
