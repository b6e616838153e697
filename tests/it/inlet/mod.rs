//! Tests of `src/inlet`: pushes.

mod emulator;
mod push;
