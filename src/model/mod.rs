//! Plain data types: messages, topics and events. No clock, lock or I/O.

pub mod event;
pub mod message;
pub mod topic;
