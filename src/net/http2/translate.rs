//! Requests and responses between h2's types and actix': of two versions of the crate `http`.

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

/// What has no meaning in HTTP/2 ([RFC 9113, section
/// 8.2.2](https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2)).
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request for actix. None if it is not one: a CONNECT has no path.
pub(super) fn request(request: http::Request<RecvStream>) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let mut request = Request::with_payload(payload(body));
    let head: &mut RequestHead = request.head_mut();
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = uri(&parts.uri)?;
    head.version = Version::HTTP_2;
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(request)
}

fn uri(uri: &http::Uri) -> Option<Uri> {
    let mut builder = Uri::builder().path_and_query(uri.path_and_query()?.as_str());
    // One without the other is no URI for the builder; the authority is what stands for `Host`.
    if let Some(authority) = uri.authority() {
        let scheme = uri.scheme_str().unwrap_or("http");
        builder = builder.scheme(scheme).authority(authority.as_str());
    }
    builder.build().ok()
}

/// What has been read makes room in the window for as much again.
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

/// The head of a response whose body has this size.
pub(super) fn response(response: &Response<()>, size: BodySize) -> http::Response<()> {
    let mut head = http::Response::new(());
    if let Ok(status) = http::StatusCode::from_u16(response.status().as_u16()) {
        *head.status_mut() = status;
    }
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        let text = name.as_str();
        if OF_CONNECTIONS.contains(&text) || text == "content-length" {
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
