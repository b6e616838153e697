//! Page for people (`--page`), which shows the events, topics and streams of the gateway. It reads
//! `GET /events`, as all readers do; [`overview`] has what no stream carries.

pub(crate) mod overview;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};

use crate::http::problem::problem;

/// Content Security Policy of the page, because event data is untrusted. A browser loads only
/// scripts, styles and images of the gateway, and lets no page put this page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the page: name, media type and content.
const FILES: &[(&str, &str, &str)] = &[
    ("page.css", CSS, include_str!("page.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("page.js", JAVASCRIPT, include_str!("page.js")),
    ("connection.js", JAVASCRIPT, include_str!("connection.js")),
    ("lines.js", JAVASCRIPT, include_str!("lines.js")),
    ("tail.js", JAVASCRIPT, include_str!("tail.js")),
    ("row.js", JAVASCRIPT, include_str!("row.js")),
    ("json.js", JAVASCRIPT, include_str!("json.js")),
    ("sentences.js", JAVASCRIPT, include_str!("sentences.js")),
    ("overview.js", JAVASCRIPT, include_str!("overview.js")),
    ("cut.js", JAVASCRIPT, include_str!("cut.js")),
    ("curl.js", JAVASCRIPT, include_str!("curl.js")),
    ("publish.js", JAVASCRIPT, include_str!("publish.js")),
];

/// Answers `GET /` with the page. Everyone gets it: it contains no data.
pub(crate) async fn html() -> HttpResponse {
    answer("text/html; charset=utf-8", include_str!("page.html"))
}

/// Answers `GET /page/{file}` with a file of the page.
pub(crate) async fn file(name: web::Path<String>) -> HttpResponse {
    match FILES.iter().find(|(known, ..)| *known == name.as_str()) {
        Some((_, media_type, content)) => answer(media_type, content),
        None => problem(StatusCode::NOT_FOUND, "the page has no file with this name"),
    }
}

/// Returns a file of the page, with headers against misuse.
fn answer(media_type: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, media_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}
