//! Tests of `src/inlet`: pushes.

mod cloud_events;
mod emulator;
mod push;
