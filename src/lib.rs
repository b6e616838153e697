//! Pub/Sub messages in, server-sent events out.
//!
//! ```text
//!             inlet                hub                 outlet
//! POST /push ─▶ oidc ─▶ envelope ─▶ Hub ─▶ ring ─▶ cursor ─▶ GET /events
//! ```
//!
//! A push is authenticated and decoded ([`inlet`]), stored in a log ([`backplane`]), gets an id and
//! a place in its topic's ring ([`hub`]), and is read from there by every subscriber ([`outlet`]).
//! The ring is the only queue: a subscriber is a cursor, and one that falls off the ring is told
//! so.

pub mod auth;
pub mod backplane;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod hub;
pub mod inlet;
pub mod limits;
pub mod model;
pub mod net;
pub mod outlet;
pub mod server;
pub mod stream;
pub mod telemetry;

// How it is set up.

// What arrives.

// What leaves.

// Beside the data's way.
