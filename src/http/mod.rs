//! Parts that all HTTP handlers share: error answers, client addresses, CORS and head limits.

pub mod client_address;
pub mod cors;
pub(crate) mod head_limits;
pub(crate) mod problem;
