//! Tests of the documentation: README, manifests and examples match the program.

mod examples;
mod readme;
mod toolchain;
