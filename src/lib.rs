//! Gateway from Google Cloud Pub/Sub to browsers: a message that Pub/Sub pushes (`POST /push`) is
//! stored as an event, and readers receive events as server-sent events (`GET /events`).
//!
//! ```text
//!                inlet                  backplane   hub              stream     outlet
//! POST /push ─▶ token ─▶ body ─▶ message ─▶ log ─▶ rings ◀─ cursor ─▶ session ─▶ GET /events
//!               auth
//! ```
//!
//! The ring of a topic is the only queue: a subscriber is a cursor, and a subscriber whose next
//! event has left the ring is sent a gap.
//!
//! # Modules
//!
//! Start:
//! - [`cli`]: subcommands; reads the arguments and the environment.
//! - [`config`]: table of flags, and the checked configuration.
//! - [`server`]: start, workers, routes, health and shutdown.
//!
//! Modules from the socket to the event:
//! - [`net`]: connections, TLS, the PROXY protocol, HTTP/1.1 and HTTP/2.
//! - [`http`]: error answers, client addresses, CORS and limits of request heads.
//! - [`auth`]: tokens of pushes and of readers.
//! - [`inlet`]: receives, checks and decodes pushed messages.
//! - [`backplane`]: log of the messages: this process, or Redis for several replicas.
//! - [`hub`]: rings of events, and the subscribers that wait for them.
//!
//! Modules from the event to the socket:
//! - [`presence`]: who takes part in a topic, over all replicas.
//! - [`stream`]: a reader's stream: request, limits, session and writes.
//! - [`outlet`]: answers to readers: `GET /events`, tickets and the page for people.
//!
//! Shared:
//! - [`model`]: messages, topics and events as plain data.
//! - [`limits`]: bytes, permits by key, and requests per second.
//! - [`telemetry`]: metrics and logs.
//! - [`clock`]: the wall clock.
//!
//! `ARCHITECTURE.md` describes a push and a stream step by step.

#![warn(missing_docs, unreachable_pub)]

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
pub mod presence;
pub mod server;
pub mod stream;
pub mod telemetry;
