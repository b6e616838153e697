//! Data model: messages, topics, events, control messages, and the formats in which they are sent.
//! Plain data: no clock, no lock, no I/O.

pub mod control;
pub mod encode;
pub mod event;
pub mod event_id;
mod frame;
pub mod gap;
pub mod message;
pub mod topic;
