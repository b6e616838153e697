//! Wall clock. Only this module reads it; all other code receives the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time of the wall clock.
pub type WallTime = SystemTime;

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "only this module reads the wall clock")]
pub fn now() -> WallTime {
    SystemTime::now()
}

/// Returns the Unix time in milliseconds, or 0 if the clock is set before 1970.
pub fn now_ms() -> u64 {
    now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Converts a Unix time in milliseconds. Returns 1970 if the system cannot represent the time.
pub fn at_ms(unix_ms: u64) -> WallTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH)
}
