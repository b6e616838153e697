//! What all HTTP handlers share: error answers, client addresses, CORS and limits of heads.

pub mod client_address;
pub mod cors;
pub mod problem;
