//! Tests of `src/inlet`: pushes and publishing.

mod cloud_events;
mod emulator;
mod publish;
#[cfg(feature = "pull")]
mod pull;
mod push;
