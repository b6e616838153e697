//! Flags of traces.

use super::Values;
use crate::config::{TraceConfig, pull::is_project};

impl Values<'_> {
    /// Reads the flags of traces.
    pub(in crate::config) fn traces(&mut self) -> TraceConfig {
        const PROJECT: &str = "trace-project";
        let project = self.filled(PROJECT);
        if let Some(text) = project.filter(|text| !is_project(text)) {
            self.problem(PROJECT, format!("{text:?} is not the id of a project, as in my-project"));
        }
        TraceConfig { project: project.map(str::to_owned) }
    }
}
