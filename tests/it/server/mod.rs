//! Tests of `src/server`: routes, health, limits, attacks and restarts.

mod cors;
mod health;
mod hostile;
mod limits;
mod logs;
mod rolling;
#[cfg(feature = "otel")]
mod traces;
