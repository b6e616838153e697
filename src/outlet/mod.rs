//! Outlets: one file per way out.

pub mod demo;
pub mod sse;
pub mod tickets;
