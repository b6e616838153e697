//! Outlets: one file for each kind of answer to readers.

pub mod demo;
mod format;
mod refusal;
pub mod sse;
pub mod tickets;
