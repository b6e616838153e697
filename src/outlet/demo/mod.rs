//! Demo page of `dev`: shows events when they arrive.

use std::collections::BTreeMap;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde::{Deserialize, Serialize};

use crate::{
    http::problem::problem,
    model::{event::Event, event_id::EventId},
    stream::StreamContext,
};

/// Content Security Policy of the page, because event data is untrusted. A browser loads only
/// scripts and styles of the gateway, and lets no page put this page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers `GET /` with the page.
pub(crate) async fn html() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

/// Answers `GET /page.js` with the script.
pub(crate) async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// Answers `GET /page.css` with the style sheet.
pub(crate) async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

/// Largest number of ids in one request of the page. Each id takes the hub's lock once.
const IDS_MAX: usize = 100;

/// Query of [`origins`].
#[derive(Debug, Deserialize)]
pub(crate) struct Ids {
    /// Event ids, with commas between them.
    ids: String,
}

/// What a frame of a stream does not say of its event.
#[derive(Debug, Serialize)]
struct Origin {
    topic: String,
    attributes: BTreeMap<String, String>,
}

impl Origin {
    fn of(event: &Event) -> Self {
        let attributes = event.attributes().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self { topic: event.topic.to_string(), attributes: attributes.collect() }
    }
}

/// Answers `GET /page/origins?ids=…` with the topic and the attributes of each event, by id: events
/// on a stream do not name them, and the page shows events of all topics. Ids of events that the
/// hub does not hold are left out. Answers 400 if an id cannot be read, or if there are more than
/// 100 ids.
pub(crate) async fn origins(
    query: Option<web::Query<Ids>>,
    context: web::Data<StreamContext>,
) -> HttpResponse {
    let ids = query.as_ref().map(|query| query.ids.split(',').map(str::parse::<EventId>));
    let ids: Option<Result<Vec<_>, _>> = ids.map(|ids| ids.take(IDS_MAX + 1).collect());
    let Some(Ok(ids)) = ids.filter(|ids| ids.as_ref().is_ok_and(|ids| ids.len() <= IDS_MAX)) else {
        let form = format!("expected ids=ID,ID with at most {IDS_MAX} event ids");
        return problem(StatusCode::BAD_REQUEST, form);
    };
    let found = ids.into_iter().filter_map(|id| context.hub.find(id));
    let origins: BTreeMap<_, _> =
        found.map(|event| (event.id.to_string(), Origin::of(&event))).collect();
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(origins)
}

/// Returns a file of the page, with headers against misuse.
fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
