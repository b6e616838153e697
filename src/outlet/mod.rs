//! Outlets: one file for each kind of answer to readers.

pub(crate) mod demo;
pub(crate) mod events;
mod format;
pub(crate) mod ndjson;
mod poll;
mod refusal;
pub mod sse;
pub(crate) mod tickets;
pub(crate) mod websocket;
