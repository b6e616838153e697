//! The gateway over real sockets: one crate for all integration tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "a test may stop the test, and says what it does"
)]

mod auth;
mod backplane;
mod cli;
mod docs;
mod hub;
mod inlet;
mod net;
mod outlet;
mod seeds;
mod server;
mod stream;
mod support;
mod tidy;
