//! Routes of the public listener and of the ops listener. Pushes do not come here:
//! [`Dispatch`](crate::server::dispatch::Dispatch) answers them before the router.

use std::future::ready;

use actix_http::RequestHead;
use actix_web::{
    HttpRequest, HttpResponse, Resource, Route,
    guard::{GuardContext, fn_guard},
    http::{Method, StatusCode, header},
    web::{self, method, to},
};

use crate::{
    config::Config,
    http::{
        cors::cors,
        problem::{problem, problem_with},
    },
    inlet::publish,
    outlet::{events, grpc, page, presence, tickets, websocket},
    server::{
        api::{self, Documents},
        health,
    },
};

/// One path, its methods and its handler.
struct RouteEntry {
    path: &'static str,
    /// Methods. A path with OPTIONS is for web pages too, and has the rules of CORS.
    methods: &'static [Method],
    /// Where the path is.
    place: Place,
    /// Makes the route to the handler.
    handler: fn() -> Route,
}

/// Where a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Public listener.
    Public,
    /// Public listener with `--page`.
    Page,
    /// Ops listener.
    Ops,
    /// Both listeners.
    Both,
}

const GET: &[Method] = &[Method::GET];
const READ: &[Method] = &[Method::GET, Method::HEAD];
const PAGES_READ: &[Method] = &[Method::GET, Method::HEAD, Method::OPTIONS];
const POST: &[Method] = &[Method::POST];
const PAGES_POST: &[Method] = &[Method::POST, Method::OPTIONS];

/// All paths of both listeners. `src/server/api/openapi.json` describes each. Each probe has a
/// second path, because Cloud Run reserves some paths that end in z.
const ROUTES: &[RouteEntry] = &[
    route("/events", PAGES_READ, Place::Public, || to(events::events)),
    // Browsers send no preflight for WebSockets: the handler checks the origin.
    route("/ws", GET, Place::Public, || to(websocket::websocket)),
    route("/presence/{topic}", PAGES_READ, Place::Public, || to(presence::presence)),
    route("/ticket", PAGES_POST, Place::Public, || to(tickets::ticket)),
    route("/renew", PAGES_POST, Place::Public, || to(tickets::renew)),
    route("/publish/{topic}", PAGES_POST, Place::Public, || to(publish::publish)),
    // `Dispatch` has answered the pushes.
    route("/push", POST, Place::Public, || to(not_found)),
    route("/push/{topic}", POST, Place::Public, || to(not_found)),
    route("/healthz", READ, Place::Both, || to(health::health)),
    route("/health", READ, Place::Both, || to(health::health)),
    route("/readyz", READ, Place::Both, || to(health::ready)),
    route("/ready", READ, Place::Both, || to(health::ready)),
    route("/metrics", READ, Place::Ops, || to(health::metrics)),
    route("/openapi.json", PAGES_READ, Place::Public, || to(api::openapi)),
    route("/asyncapi.json", PAGES_READ, Place::Public, || to(api::asyncapi)),
    route("/", READ, Place::Page, || to(page::html)),
    route("/page/overview", READ, Place::Page, || to(page::overview::overview)),
    route("/page/{file}", READ, Place::Page, || to(page::file)),
];

const fn route(
    path: &'static str,
    methods: &'static [Method],
    place: Place,
    handler: fn() -> Route,
) -> RouteEntry {
    RouteEntry { path, methods, place, handler }
}

/// Makes the documents that describe the paths.
///
/// # Errors
/// Returns an error if a document in the source tree is not JSON.
pub(super) fn documents(config: &Config) -> serde_json::Result<Documents> {
    let served = ROUTES.iter().filter(|entry| entry.place != Place::Page || config.page);
    let routes: Vec<_> = served.map(|entry| (entry.path, entry.methods)).collect();
    Documents::new(config.mode, &routes)
}

/// Routes of the public listener.
pub(super) fn public_routes(config: &Config) -> impl FnOnce(&mut web::ServiceConfig) {
    let (mode, origins) = (config.mode, &config.cors_origins);
    move |routes| {
        let is_public = |entry: &&RouteEntry| match entry.place {
            Place::Public | Place::Both => true,
            Place::Page => config.page,
            Place::Ops => false,
        };
        for entry in ROUTES.iter().filter(is_public) {
            let methods: Vec<_> = entry
                .methods
                .iter()
                .filter(|method| **method != Method::OPTIONS)
                .cloned()
                .collect();
            if entry.methods.contains(&Method::OPTIONS) {
                routes.service(resource(entry).wrap(cors(mode, origins, &methods)));
            } else {
                routes.service(resource(entry));
            }
        }
        // The files in `proto/` describe these.
        for path in grpc::PATHS {
            let entry = route(path, PAGES_POST, Place::Public, || to(grpc::call));
            routes.service(resource(&entry).wrap(cors(mode, origins, &[Method::POST])));
        }
        // Without the rules of CORS, a page would not see the status of an unknown service.
        let unknown = route(grpc::ANY_PATH, PAGES_POST, Place::Public, || to(grpc::call));
        let is_call = fn_guard(|request: &GuardContext<'_>| grpc::is_call(request.head()));
        let unknown = resource(&unknown).guard(is_call);
        routes.service(unknown.wrap(cors(mode, origins, &[Method::POST])));
        routes.default_service(to(not_found));
    }
}

/// Returns true if the handler of a request may take its connection over: `GET /events` and `GET
/// /ws`. A path with percent signs may be one of them once it is decoded.
pub(super) fn may_take_over(request: &RequestHead) -> bool {
    let path = request.uri.path();
    request.method == Method::GET && (["/events", "/ws"].contains(&path) || path.contains('%'))
}

/// Returns true if the handler of a request may wait for something: a poll of `GET /events` with
/// `wait=`.
pub(super) fn may_wait(request: &RequestHead) -> bool {
    let query = request.uri.query().unwrap_or_default();
    request.uri.path() != "/ws" && query.split('&').any(|parameter| parameter.starts_with("wait="))
}

/// Returns true if the response to a request has trailers: that of gRPC.
pub(super) fn has_trailers(request: &RequestHead) -> bool {
    grpc::has_trailers(request)
}

/// Returns true if the handler of a request accepts tunnels of HTTP/2: that of `/ws`.
pub(super) fn may_tunnel(request: &RequestHead) -> bool {
    request.uri.path() == "/ws"
}

/// Routes of the ops listener.
pub(super) fn ops_routes(routes: &mut web::ServiceConfig) {
    for entry in ROUTES.iter().filter(|entry| [Place::Ops, Place::Both].contains(&entry.place)) {
        routes.service(resource(entry));
    }
    routes.default_service(to(not_found));
}

/// Makes the routes of a path: its handler, the answer to OPTIONS that is no preflight of CORS
/// (204), and the answer to methods that the path does not have (405).
fn resource(entry: &RouteEntry) -> Resource {
    let methods = entry.methods;
    let allow = move || methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let options =
        move || ready(HttpResponse::NoContent().insert_header((header::ALLOW, allow())).finish());
    let others = move || {
        let allow = allow();
        let text = format!("this path accepts {allow} only");
        ready(problem_with(StatusCode::METHOD_NOT_ALLOWED, (header::ALLOW, &allow), &text))
    };
    let is_of_handler = move |request: &GuardContext<'_>| methods.contains(&request.head().method);
    let mut resource = web::resource(entry.path);
    if methods.contains(&Method::OPTIONS) {
        resource = resource.route(method(Method::OPTIONS).to(options));
    }
    resource.route((entry.handler)().guard(fn_guard(is_of_handler))).default_service(to(others))
}

/// Answers 404. A call of gRPC gets the status that says the same.
async fn not_found(request: HttpRequest) -> HttpResponse {
    if grpc::is_grpc(request.head()) {
        return grpc::unknown_service(&request);
    }
    problem(StatusCode::NOT_FOUND, "there is nothing at this path")
}
