//! Settings of traces.

/// Settings of the traces of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceConfig {
    /// Google Cloud project of the traces in the log. `None` if it is not known.
    pub project: Option<String>,
    /// URL of the OpenTelemetry collector that spans are sent to. `None` if no span is made.
    pub otlp_endpoint: Option<String>,
}
