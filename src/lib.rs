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

// How it is set up.
pub mod config;

pub mod logs;

// What arrives.
pub mod message;

pub mod inlet;

pub mod backplane;

pub mod hub;

// What leaves.
pub mod event;

pub mod outlet;

// Beside the data's way.
pub mod accept;
pub mod address;
pub mod budget;
pub mod burst;
pub mod clock;
pub mod connection;
pub mod counts;
pub mod front;
pub mod guard;
pub mod heartbeat;
pub mod http1;
pub mod http2;
pub mod keys;
pub mod metrics;
pub mod ops;
pub mod problem;
pub mod proxy_protocol;
pub mod rate;
pub mod watch;

pub mod server;

pub mod cli;
