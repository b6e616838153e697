//! Which pages may ask: CORS, and what keeps pages of the web away from `dev`. And how much they
//! may say.

use actix_cors::Cors;
use actix_http::RequestHead;
use actix_web::{
    HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
};

use prometheus::IntCounter;

use crate::{
    config::{Mode, Origin},
    http::problem::problem,
};

/// Which pages' scripts a browser lets read the answers.
///
/// Any page's, if no origins are listed: then no cookies are involved, and who has a token in a
/// script may use it anywhere. Credentials only for those that are listed, and for the gateway's
/// own name, whose pages a browser asks no leave for. Those of `dev` are for pages on this machine:
/// of a local server, or a file. A file's origin is `null`, and so is that of a sandboxed frame in
/// any page, so this keeps honest pages away and not a determined one.
pub fn cors(mode: Mode, origins: &[Origin], methods: &[Method]) -> Cors {
    let cors = match mode {
        Mode::Serve if origins.is_empty() => Cors::default().allow_any_origin().send_wildcard(),
        Mode::Serve => {
            let origins = origins.to_vec();
            let is_listed = move |asked: &str| origins.iter().any(|origin| origin.matches(asked));
            Cors::default()
                .allowed_origin_fn(move |asked, request| {
                    let asked = asked.to_str();
                    asked.is_ok_and(|asked| is_listed(asked) || is_own(asked, request))
                })
                // A page that may not read the answer could still open streams with the cookies of
                // whoever looks at it.
                .block_on_origin_mismatch(true)
                .supports_credentials()
        }
        Mode::Dev => Cors::default()
            .allowed_origin_fn(|origin, _| origin == "null" || is_local_origin(origin)),
    };
    cors.allowed_methods(methods.to_vec())
        .allowed_headers([header::ACCEPT, header::AUTHORIZATION, header::CACHE_CONTROL])
        .allowed_header("last-event-id")
        .expose_headers([header::RETRY_AFTER])
        .max_age(24 * 3600)
}

/// The pages whose requests may use a reader's cookie.
#[derive(Debug, Clone)]
pub struct Pages {
    pub mode: Mode,
    /// As in [`cors`].
    pub origins: Vec<Origin>,
}

impl Pages {
    /// Whether a request may use the reader's cookie. A browser says with `Sec-Fetch-Site`
    /// (<https://www.w3.org/TR/fetch-metadata/>) where the page is from that makes a request, also
    /// of an image or a frame, which have no `Origin`. A request of a page of another site, or of
    /// another name of the same site, needs an `Origin` that is allowed. Older browsers and other
    /// clients do not send the header.
    pub fn may_use_cookies(&self, request: &RequestHead) -> bool {
        let headers = request.headers();
        let Some(site) = headers.get("sec-fetch-site") else { return true };
        // `none`: whoever looks at it typed the address.
        if ["same-origin", "none"].contains(&site.to_str().unwrap_or_default()) {
            return true;
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return false };
        match self.mode {
            Mode::Dev => is_local_origin(origin),
            Mode::Serve => origin.to_str().is_ok_and(|asked| {
                self.origins.iter().any(|origin| origin.matches(asked)) || is_own(asked, request)
            }),
        }
    }
}

/// Whether a page is of the gateway's own name. Only with TLS: a page of that name without it may
/// be anyone's on the way.
fn is_own(origin: &str, request: &RequestHead) -> bool {
    origin.strip_prefix("https://") == Some(host_of(request))
}

/// `dev` checks no tokens, so a page on the web must not publish to it, nor reach it by a name of
/// its own that points to loopback (DNS rebinding).
pub fn refusal(mode: Mode, request: &RequestHead) -> Option<HttpResponse> {
    if mode == Mode::Serve {
        return None;
    }
    let origin = request.headers().get(header::ORIGIN);
    let foreign = request.method == Method::POST && origin.is_some_and(|o| !is_local_origin(o));
    if !foreign && is_loopback(host_of(request)) {
        return None;
    }
    let text = "dev answers only to localhost and loopback addresses, and to pages from there";
    Some(problem(StatusCode::MISDIRECTED_REQUEST, text))
}

/// How large the head of a request may be, and the query in it.
#[derive(Debug, Clone)]
pub struct HeadLimits {
    pub bytes: usize,
    pub query_bytes: usize,
    /// How often each was met.
    pub bytes_met: IntCounter,
    pub query_met: IntCounter,
}

impl HeadLimits {
    /// The answer to a head that is too large.
    pub fn refusal(&self, request: &RequestHead) -> Option<HttpResponse> {
        let query = request.uri.query().unwrap_or_default().len();
        if self.query_bytes < query {
            self.query_met.inc();
            let most = self.query_bytes;
            let text = format!("the query has {query} bytes, and may have {most}");
            return Some(problem(StatusCode::URI_TOO_LONG, text));
        }
        let fields =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        let bytes = request.uri.path().len() + query + fields.sum::<usize>();
        if self.bytes < bytes {
            self.bytes_met.inc();
            let most = self.bytes;
            let text = format!("the head has {bytes} bytes, and may have {most}");
            return Some(problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
        }
        None
    }
}

fn is_local_origin(origin: &HeaderValue) -> bool {
    let host = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    host.is_some_and(is_loopback)
}

/// What the peer says it speaks to: HTTP/2's authority or HTTP/1's `Host`. Not what a `Forwarded`
/// header says, since a page can set that one.
fn host_of(request: &RequestHead) -> &str {
    let authority = request.uri.authority().map(actix_http::uri::Authority::as_str);
    let host = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    authority.or_else(host).unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    // The port follows the last colon, unless that is one of a bare IPv6 address in brackets.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.trim_matches(['[', ']']).parse();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
