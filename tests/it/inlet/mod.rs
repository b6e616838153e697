//! Tests of `src/inlet`: pushes and publishing.

mod cloud_events;
mod emulator;
mod publish;
mod push;
