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
        TraceConfig { project: project.map(str::to_owned), otlp_endpoint: self.otlp_endpoint() }
    }

    /// Reads `--otlp-endpoint`. The error does not repeat the URL, which may hold a password.
    fn otlp_endpoint(&mut self) -> Option<String> {
        const FLAG: &str = "otlp-endpoint";
        let text = self.filled(FLAG)?;
        let url = reqwest::Url::parse(text).ok();
        let is_plain = |url: &reqwest::Url| {
            ["http", "https"].contains(&url.scheme())
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        if !url.is_some_and(|url| is_plain(&url)) {
            self.problem(
                FLAG,
                "expected the URL of a collector, as in http://localhost:4318, without a user, \
                 query or fragment. OTEL_EXPORTER_OTLP_HEADERS may hold credentials",
            );
        } else if !cfg!(feature = "otel") {
            self.problem(
                FLAG,
                "this build exports no spans. Use the image, or build with: cargo build --features otel",
            );
        }
        Some(text.to_owned())
    }
}
