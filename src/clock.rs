//! The one place that reads the wall clock. Everything else takes the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time, for what writes it out.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Unix time in milliseconds. A clock set before 1970 reads as 0.
pub fn now_ms() -> u64 {
    now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
