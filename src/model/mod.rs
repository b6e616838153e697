//! Data model: messages, topics, events, filters, control messages, and the formats in which events
//! are sent.
//! Plain data: no clock, no lock, no I/O.

pub(crate) mod control;
pub mod encode;
pub mod event;
pub mod event_id;
pub mod filter;
mod frame;
pub mod gap;
pub mod message;
pub mod presence;
pub mod topic;
pub mod trace_context;
