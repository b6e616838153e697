//! Shared limits: a budget of bytes, permits by key, and requests per second by key.

pub mod budget;
pub mod concurrency;
pub mod rate;
