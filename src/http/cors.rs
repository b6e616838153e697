//! Web pages that may use the gateway: CORS, cookies, and the protection of `dev` from pages of the
//! web.

use actix_cors::Cors;
use actix_http::RequestHead;
use actix_web::{
    HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
};

use crate::{
    config::{Mode, Origin},
    http::problem::problem,
};

/// Returns the CORS rules: the pages whose scripts a browser lets read the answers.
///
/// - `serve` without `origins`: every page, without credentials. A script that has a token may use
///   it on any page.
/// - `serve` with `origins`: pages of these origins, and pages of the gateway's own host, for which
///   a browser does not ask for permission; with credentials. A request with another origin is
///   refused (400).
/// - `dev`: pages of this machine, which are pages of a local server and files. The origin of a
///   file is `null`, which a sandboxed frame in any page has too. The rule therefore stops pages
///   that reach `dev` by accident, and not an attacker who uses such a frame.
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
                // Without a refusal, a page that may not read the answer could still open streams
                // with its visitor's cookies.
                .block_on_origin_mismatch(true)
                .supports_credentials()
        }
        Mode::Dev => Cors::default()
            .allowed_origin_fn(|origin, _| origin == "null" || is_local_origin(origin)),
    };
    cors.allowed_methods(methods.to_vec())
        .allowed_headers([header::ACCEPT, header::AUTHORIZATION, header::CACHE_CONTROL])
        .allowed_header(header::CONTENT_TYPE)
        .allowed_header("idempotency-key")
        .allowed_header("last-event-id")
        .allowed_header("grpc-timeout")
        .allowed_header("x-grpc-web")
        .allowed_header("x-user-agent")
        .allowed_header(header::IF_NONE_MATCH)
        .expose_headers([header::RETRY_AFTER, header::ETAG])
        .expose_headers(["grpc-status", "grpc-message", "grpc-retry-pushback-ms"])
        .max_age(24 * 3600)
}

/// Rule for the pages whose requests may use a reader's cookie.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Subcommand that started the gateway.
    pub mode: Mode,
    /// Origins of `--cors-origin`.
    pub origins: Vec<Origin>,
}

impl Pages {
    /// Returns true if a request may use the reader's cookie.
    ///
    /// `Sec-Fetch-Site` (<https://www.w3.org/TR/fetch-metadata/>) tells how the page that makes a
    /// request relates to the gateway. Browsers send it also for images and frames, which have no
    /// `Origin`. A request from another site, or from another host of the same site, needs an
    /// allowed `Origin`. Older browsers and other clients do not send the header; their requests
    /// may use the cookie, except to open a WebSocket from a page with another `Origin`.
    pub fn may_use_cookies(&self, request: &RequestHead) -> bool {
        let headers = request.headers();
        let Some(site) = headers.get("sec-fetch-site") else {
            return !is_websocket(request)
                || !headers.contains_key(header::ORIGIN)
                || self.is_from_allowed_page(request);
        };
        // `none`: the user entered the address.
        if ["same-origin", "none"].contains(&site.to_str().unwrap_or_default()) {
            return true;
        }
        self.is_from_allowed_page(request)
    }

    /// Returns true if a request that publishes may use the cookie: it says that it comes from a
    /// page of the gateway's own origin, or it has an allowed `Origin`. Every browser sends one of
    /// the two headers with a POST, so a request without both is not trusted.
    pub fn may_publish_with_cookies(&self, request: &RequestHead) -> bool {
        let site = request.headers().get("sec-fetch-site");
        site.is_some_and(|site| site == "same-origin") || self.is_from_allowed_page(request)
    }

    /// Returns true if a request may open a WebSocket. A browser lets every page open one to every
    /// host and read from it, and sends the `Origin` of the page each time. So the page must be one
    /// that [`cors`] allows. Other clients send no `Origin`.
    pub fn may_open_websocket(&self, request: &RequestHead) -> bool {
        let origin = request.headers().get(header::ORIGIN);
        let Some(origin) = origin else { return true };
        match self.mode {
            Mode::Serve if self.origins.is_empty() => true,
            Mode::Dev if origin == "null" => true,
            Mode::Dev | Mode::Serve => self.is_from_allowed_page(request),
        }
    }

    /// Returns true if the request has an `Origin` that is listed or the gateway's own.
    fn is_from_allowed_page(&self, request: &RequestHead) -> bool {
        let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
        match self.mode {
            Mode::Dev => is_local_origin(origin),
            Mode::Serve => origin.to_str().is_ok_and(|asked| {
                self.origins.iter().any(|origin| origin.matches(asked)) || is_own(asked, request)
            }),
        }
    }
}

/// Returns true for the handshake of a WebSocket.
fn is_websocket(request: &RequestHead) -> bool {
    request.headers().contains_key(header::SEC_WEBSOCKET_VERSION)
}

/// Returns true if `origin` is `https://` and the host of the request. An `http://` page of this
/// host is not trusted: an attacker on the network may have sent it.
fn is_own(origin: &str, request: &RequestHead) -> bool {
    origin.strip_prefix("https://") == Some(host_of(request))
}

/// Returns the refusal (421) of a request to `dev` that comes from the web. `dev` checks no tokens,
/// so it refuses a POST of a page that is not on this machine, and every request whose host is not
/// loopback: a page could give its own name the address 127.0.0.1 (DNS rebinding).
pub fn refusal(mode: Mode, request: &RequestHead) -> Option<HttpResponse> {
    if mode == Mode::Serve {
        return None;
    }
    let origin = request.headers().get(header::ORIGIN);
    let foreign = request.method == Method::POST && origin.is_some_and(|o| !is_local_origin(o));
    if !foreign && is_loopback(host_of(request)) {
        return None;
    }
    let text =
        "dev answers only requests to localhost or a loopback address, and only from pages there";
    Some(problem(StatusCode::MISDIRECTED_REQUEST, text))
}

/// Returns true if the origin's host is loopback.
fn is_local_origin(origin: &HeaderValue) -> bool {
    let host = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    host.is_some_and(is_loopback)
}

/// Returns the host that the request names: HTTP/2's authority or HTTP/1's `Host`. `Forwarded` is
/// ignored, because a page can set it.
fn host_of(request: &RequestHead) -> &str {
    let authority = request.uri.authority().map(actix_http::uri::Authority::as_str);
    let host = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    authority.or_else(host).unwrap_or_default()
}

/// Returns true for `localhost` and loopback addresses, with or without a port.
fn is_loopback(host: &str) -> bool {
    // The port follows the last colon. The colons of `[::1]` are inside brackets.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.trim_matches(['[', ']']).parse();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
