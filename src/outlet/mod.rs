//! Outlets: one file per way out.

pub mod demo;
mod refusal;
pub mod sse;
pub mod tickets;
