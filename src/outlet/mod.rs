//! How events go out: one file per way out.

pub mod demo;
pub mod sse;
pub mod tickets;
