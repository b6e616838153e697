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

mod support;

mod push;

mod oidc;

mod keys;

mod reading;

mod sessions;

mod cors;

mod limits;

mod followed;

mod hostile;

mod hub;

mod hub_model;

mod hub_patterns;
mod hub_shared;

mod hub_threads;

mod seeds;

mod straight;

mod lean;

mod rows;

mod stream;

mod round_trip;

mod resume;

mod leaving;

mod slow;

mod http2;

mod proxy_protocol;

mod proxies;

mod rolling;

mod replicas;

mod log_faults;

mod log_changes;

mod log_settings;

mod chaos;

mod ops;
mod pipelines;

mod cli;

mod emulator;

mod examples;

mod browser;

mod docs;

mod tidy;
