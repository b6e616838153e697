//! Wall clock. Only this module reads it; all other code receives the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "only this module reads the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the Unix time in milliseconds, or 0 if the clock is set before 1970.
pub fn now_ms() -> u64 {
    now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
