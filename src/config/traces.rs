//! Settings of traces.

/// What is done with the traces of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceConfig {
    /// Google Cloud project of the traces in the log. `None` if it is not known.
    pub project: Option<String>,
}
