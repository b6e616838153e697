//! Outlets: one file for each kind of answer to readers.

pub mod demo;
pub mod events;
mod format;
pub mod ndjson;
mod poll;
mod refusal;
pub mod sse;
pub mod tickets;
