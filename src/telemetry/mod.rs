//! Telemetry: metrics and logs.

pub(crate) mod logs;
pub mod metrics;
pub(crate) mod throttle;
pub mod traces;
