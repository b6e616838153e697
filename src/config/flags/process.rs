//! Flags of the process.

use crate::config::flag::{Flag, flag};

/// Flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag("workers", "N", Some("0"), "Threads that serve connections. 0: one for each core")
        .range("0", "1024"),
    flag("log-format", "json|text", Some("json"), "json: for Cloud Logging. text: for people")
        .dev("text"),
    flag(
        "log-level",
        "FILTER",
        Some("info"),
        "error, warn, info, debug or trace, also for a module: info,stream_events::inlet=debug",
    )
    .main(),
    flag(
        "trace-project",
        "PROJECT",
        Some(""),
        "Google Cloud project of the traces that log lines name \
         (logging.googleapis.com/trace). A message has a trace if its publisher sent \
         googclient_traceparent or traceparent as an attribute",
    ),
    flag(
        "otlp-endpoint",
        "URL",
        Some(""),
        "URL of an OpenTelemetry collector that takes OTLP over HTTP, as in \
         http://localhost:4318, for spans of messages whose publishers record their trace. \
         OTEL_EXPORTER_OTLP_ENDPOINT changes the default. Needs a build with the feature otel, \
         which the image has",
    ),
];
