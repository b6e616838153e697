//! Tests of the documentation: README, manifests and examples match the program.

mod api;
mod chat;
mod examples;
mod readme;
mod toolchain;
