//! Outlets: one file for each kind of answer to readers.

pub mod demo;
mod refusal;
pub mod sse;
pub mod tickets;
