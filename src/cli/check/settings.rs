//! Settings that mend what `check` finds. docs/check.md has the same, and a test compares them.

use crate::cli::check::finding::Setting;

const fn set(program: &'static str, setting: &'static str) -> Setting {
    Setting { program, setting }
}

/// A proxy holds the stream back.
pub(super) const BUFFERING: &[Setting] = &[
    set("nginx", "proxy_buffering off; and proxy_http_version 1.1; in the location of /events"),
    set("Kong", "response_buffering: false of the route"),
    set("Envoy", "no filter that reads whole answers (ext_proc with response_body_mode BUFFERED)"),
    set(
        "Google's load balancers and Cloud Run",
        "hold nothing back: look for the proxy between them and the gateway",
    ),
];

/// A proxy compresses the stream.
pub(super) const COMPRESSION: &[Setting] = &[
    set("nginx", "gzip off; in the location of /events, or gzip_types without text/event-stream"),
    set("Google's load balancers", "compressionMode: DISABLED of the backend service"),
    set("Kong", "nginx_proxy_gzip_types without text/event-stream"),
    set("Envoy", "content_type of the compressor filter without text/event-stream"),
    set("HAProxy", "compression type without text/event-stream"),
];

/// A proxy cuts the stream.
pub(super) const CUT: &[Setting] = &[
    set("nginx", "proxy_read_timeout 60s; (silence, more than --keep-alive)"),
    set("Google's load balancers", "timeoutSec: 3600 of the backend service (by default 30)"),
    set("Cloud Run", "timeoutSeconds: 3600 (--timeout=3600, by default 300)"),
    set("Kong", "read_timeout: 60000 of the service (silence, more than --keep-alive)"),
    set("Envoy", "timeout: 0s of the route (by default 15s), and stream_idle_timeout: 60s"),
    set("HAProxy", "timeout server 60s and timeout client 60s (silence, more than --keep-alive)"),
    set("gateway", "--keep-alive shorter than the proxy's limit of silence"),
];

/// A proxy takes the header `Last-Event-ID` away.
pub(super) const LAST_EVENT_ID: &[Setting] = &[
    set("nginx", "proxy_pass_request_headers on; and no proxy_set_header Last-Event-ID"),
    set("Kong", "no request-transformer that removes Last-Event-ID"),
    set("Envoy", "no Last-Event-ID in request_headers_to_remove"),
    set("HAProxy", "no http-request del-header Last-Event-ID"),
];

/// Gateways with different logs are behind one address.
pub(super) const REPLICAS: &[Setting] = &[
    set("gateway", "--backplane redis://HOST:6379 on every replica, or a single gateway"),
    set("Cloud Run", "maxScale: 1 with --backplane local"),
];

/// The gateway does not know the origin of the page.
pub(super) const ORIGIN: &[Setting] = &[
    set("gateway", "--cors-origin with the origin of the page"),
    set("Cloud Run", "--no-invoker-iam-check: a preflight has no token"),
];

/// A proxy answers preflights itself, or changes the headers of CORS.
pub(super) const CORS: &[Setting] = &[
    set("nginx", "no add_header Access-Control-… and no if ($request_method = OPTIONS)"),
    set("Google's load balancers", "no corsPolicy in the URL map"),
    set("Cloud Run", "--no-invoker-iam-check: a preflight has no token"),
    set("Kong", "OPTIONS in the methods of the route, and no plugin cors"),
    set("Envoy", "no cors policy of the route or the virtual host"),
];

/// Clients get HTTP/1.1 only.
pub(super) const HTTP2: &[Setting] = &[
    set("nginx", "http2 on; (before 1.25.1: listen 443 ssl http2;)"),
    set("Kong", "proxy_listen with http2 ssl"),
    set("Envoy", "alpn_protocols: [h2, http/1.1] and codec_type: AUTO"),
    set("HAProxy", "alpn h2,http/1.1 of the bind line"),
    set("Google's load balancers and Cloud Run", "offer HTTP/2: look for the proxy before them"),
];

/// Anyone can push.
pub(super) const PUSH: &[Setting] = &[
    set("gateway", "--push-auth oidc, with --push-audience and --push-service-account"),
    set("gateway that pulls", "--push-auth off"),
    set("nginx, Kong, Envoy, HAProxy", "no route for /push, if Pub/Sub does not come this way"),
];

/// The gateway refuses the reader's token.
pub(super) const TOKEN: &[Setting] =
    &[set("gateway", "stream-events token explain TOKEN says why a token is refused")];

/// All settings, by the name of their list: a test looks for each in docs/check.md.
const ALL: [(&str, &[Setting]); 10] = [
    ("buffering", BUFFERING),
    ("compression", COMPRESSION),
    ("cut", CUT),
    ("Last-Event-ID", LAST_EVENT_ID),
    ("replicas", REPLICAS),
    ("origin", ORIGIN),
    ("CORS", CORS),
    ("HTTP/2", HTTP2),
    ("push", PUSH),
    ("token", TOKEN),
];

/// Returns the rows of the table in docs/check.md: list, program and setting.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ALL.iter()
        .flat_map(|(list, settings)| settings.iter().map(move |of| (*list, of.program, of.setting)))
}
