//! Routes of the public listener and of the ops listener. Pushes do not come here:
//! [`Dispatch`](crate::server::dispatch::Dispatch) answers them before the router.

use actix_http::RequestHead;
use actix_web::{
    HttpResponse,
    guard::{Any, Get, Head},
    http::{Method, StatusCode, header},
    web,
};

use crate::{
    config::{Mode, Origin},
    http::{
        cors::cors,
        problem::{problem, problem_with},
    },
    inlet::push,
    outlet::{demo, sse, tickets},
    server::health,
};

/// Routes of the public listener.
pub(super) fn public_routes(
    mode: Mode,
    origins: &[Origin],
) -> impl FnOnce(&mut web::ServiceConfig) {
    move |routes| {
        let events = web::resource("/events")
            .wrap(cors(mode, origins, &[Method::GET, Method::HEAD]))
            .route(read().to(sse::events))
            .default_service(web::to(sse::only_get));
        let by_post = |path| {
            web::resource(path)
                .wrap(cors(mode, origins, &[Method::POST]))
                .default_service(web::to(tickets::only_post))
        };
        let not_by_post = |path| web::resource(path).default_service(web::to(push::only_post));
        routes
            .service(events)
            .service(by_post("/ticket").route(web::post().to(tickets::ticket)))
            .service(by_post("/renew").route(web::post().to(tickets::renew)))
            .service(not_by_post("/push"))
            .service(not_by_post("/push/{topic}"))
            .configure(health_routes)
            .default_service(web::to(not_found));
        if mode == Mode::Dev {
            routes
                .route("/", read().to(demo::html))
                .route("/page.js", read().to(demo::script))
                .route("/page.css", read().to(demo::style))
                .route("/page/origins", read().to(demo::origins));
        }
    }
}

/// Returns true if the handler of a request may take its connection over: `GET /events`. A path
/// with percent signs may be `/events` once it is decoded.
pub(super) fn may_take_over(request: &RequestHead) -> bool {
    let path = request.uri.path();
    request.method == Method::GET && (path == "/events" || path.contains('%'))
}

/// Routes of the ops listener.
pub(super) fn ops_routes(routes: &mut web::ServiceConfig) {
    routes
        .route("/metrics", read().to(health::metrics))
        .configure(health_routes)
        .default_service(web::to(not_found));
}

/// Routes of the probes. Each probe has a second path, because Cloud Run reserves some paths that
/// end in z.
fn health_routes(routes: &mut web::ServiceConfig) {
    for path in ["/healthz", "/health"] {
        routes.service(
            web::resource(path).route(read().to(health::health)).default_service(only_read()),
        );
    }
    for path in ["/readyz", "/ready"] {
        routes.service(
            web::resource(path).route(read().to(health::ready)).default_service(only_read()),
        );
    }
}

/// Route for GET, and for HEAD, whose answer has no body.
fn read() -> actix_web::Route {
    web::route().guard(Any(Get()).or(Head()))
}

/// Route that answers other methods with 405.
fn only_read() -> actix_web::Route {
    web::to(async || {
        let allow = (header::ALLOW, "GET, HEAD");
        problem_with(StatusCode::METHOD_NOT_ALLOWED, allow, "this path accepts GET and HEAD only")
    })
}

/// Answers 404.
async fn not_found() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path")
}
