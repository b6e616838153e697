//! Traces of messages in the log.

use crate::model::trace_context::TraceContext;

/// What the gateway does with the trace of a message.
#[derive(Debug, Default)]
pub struct Traces {
    /// Google Cloud project of the traces. `None` if it is not known.
    project: Option<String>,
}

impl Traces {
    /// Creates the traces of a Google Cloud project.
    pub fn new(project: Option<String>) -> Self {
        Self { project }
    }

    /// Returns the name of a trace for the field `logging.googleapis.com/trace` of Cloud Logging.
    /// Without a project it is the id of the trace, which the logging agent of GKE completes.
    pub(crate) fn name(&self, context: TraceContext) -> String {
        let id = context.trace_id;
        match &self.project {
            Some(project) => format!("projects/{project}/traces/{id:032x}"),
            None => format!("{id:032x}"),
        }
    }
}
