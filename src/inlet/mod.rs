//! How messages come in: a push is authenticated, received, decoded and stored, in that order.

pub mod body;
pub mod envelope;
pub mod push;
pub mod unwrapped;
