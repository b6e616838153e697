//! Telemetry: metrics and logs.

pub mod logs;
pub mod metrics;
pub mod throttle;
