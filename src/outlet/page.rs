//! The demo page of `dev`: what arrives, as it arrives.

use actix_web::{HttpResponse, http::header};

/// Only what is served from here runs or loads, and nobody frames it: event data is untrusted.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub async fn html() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("page/index.html"))
}

/// `GET /page.js`.
pub async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// `GET /page.css`.
pub async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", include_str!("page/page.css"))
}

fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
