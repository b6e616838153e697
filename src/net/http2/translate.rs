//! Translates requests from h2 to actix, and responses back. The two use different versions of the
//! crate `http`, so all heads are copied.

use actix_http::{Payload, Request, RequestHead, Response, error::PayloadError};
use actix_web::{
    body::BodySize,
    http::{
        Method, Uri, Version,
        header::{HeaderName, HeaderValue, HttpDate},
    },
};
use futures_util::stream;
use h2::RecvStream;
use http::header;

use crate::clock;

/// Headers of HTTP/1 connections, which are forbidden in HTTP/2 ([RFC 9113, section
/// 8.2.2](https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2)).
const CONNECTION_HEADERS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Translates a request for actix. Returns `None` for one that actix cannot represent.
pub(super) fn request(request: http::Request<RecvStream>) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    translate(&parts, method, payload(body))
}

/// Translates an extended CONNECT for actix: as a GET without a body. Returns `None` for one that
/// actix cannot represent.
pub(super) fn tunnel_request(parts: &http::request::Parts) -> Option<Request> {
    translate(parts, Method::GET, Payload::None)
}

fn translate(parts: &http::request::Parts, method: Method, payload: Payload) -> Option<Request> {
    let mut request = Request::with_payload(payload);
    let head: &mut RequestHead = request.head_mut();
    head.method = method;
    head.uri = uri(&parts.uri)?;
    head.version = Version::HTTP_2;
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(request)
}

/// Translates the URI of a request. Returns `None` when it has no path.
fn uri(uri: &http::Uri) -> Option<Uri> {
    let mut builder = Uri::builder().path_and_query(uri.path_and_query()?.as_str());
    // The builder requires a scheme with an authority. The authority replaces `Host` in HTTP/2.
    if let Some(authority) = uri.authority() {
        let scheme = uri.scheme_str().unwrap_or("http");
        builder = builder.scheme(scheme).authority(authority.as_str());
    }
    builder.build().ok()
}

/// Translates the body of a request. Each chunk that is read enlarges the flow-control window by
/// its length.
fn payload(body: RecvStream) -> Payload {
    if body.is_end_stream() {
        return Payload::None;
    }
    let chunks = stream::unfold(body, async |mut body| {
        let chunk = body.data().await?.and_then(|chunk| {
            body.flow_control().release_capacity(chunk.len())?;
            Ok(chunk)
        });
        Some((chunk.map_err(|err| PayloadError::Io(std::io::Error::other(err))), body))
    });
    Payload::Stream { payload: Box::pin(chunks) }
}

/// Translates the head of a response whose body has the size `size`.
pub(super) fn response(response: &Response<()>, size: BodySize) -> http::Response<()> {
    let mut head = http::Response::new(());
    if let Ok(status) = http::StatusCode::from_u16(response.status().as_u16()) {
        *head.status_mut() = status;
    }
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        let text = name.as_str();
        if CONNECTION_HEADERS.contains(&text) || text == "content-length" {
            continue;
        }
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(text.as_bytes()),
            http::HeaderValue::from_bytes(value.as_bytes()),
        ) {
            headers.append(name, value);
        }
    }
    if let BodySize::Sized(bytes) = size {
        headers.insert(header::CONTENT_LENGTH, bytes.into());
    }
    let date = HttpDate::from(clock::now()).to_string();
    if let Ok(date) = date.parse() {
        headers.entry(header::DATE).or_insert(date);
    }
    head
}
