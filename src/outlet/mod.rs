//! Outlets: one file for each kind of answer to readers.

mod claimed_body;
mod client;
pub(crate) mod events;
mod format;
pub(crate) mod grpc;
pub(crate) mod ndjson;
pub(crate) mod page;
mod poll;
pub(crate) mod presence;
mod refusal;
pub mod sse;
pub(crate) mod tickets;
pub(crate) mod websocket;
