//! Shared limits: a budget of bytes, permits by key, and requests per second by key.

pub(crate) mod budget;
pub(crate) mod concurrency;
pub(crate) mod rate;
