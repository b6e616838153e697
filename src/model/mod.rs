//! What the gateway handles: messages, topics and events. Plain data: no clock, lock or I/O.

pub mod event;
pub mod message;
