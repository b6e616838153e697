//! Throttle for log lines that a client can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Limit of one log line per 10 s for events of one kind.
///
/// A subscription that is configured wrongly fails with every message. One line says as much as a
/// hundred thousand, and a flood must not fill the log.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last_line: Mutex<LastLine>,
}

#[derive(Debug, Default)]
struct LastLine {
    /// Time of the last line. `None` before the first.
    time: Option<Instant>,
    /// Number of events since then that were not logged.
    unlogged: u64,
}

/// Shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

impl LogThrottle {
    /// Counts one event. If the caller is to log it, returns the number of events since the last
    /// line that were not logged.
    pub fn log(&self, now: Instant) -> Option<u64> {
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.time.is_some_and(|time| now.duration_since(time) < INTERVAL) {
            last.unlogged += 1;
            return None;
        }
        last.time = Some(now);
        Some(std::mem::take(&mut last.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_interval_is_logged() {
        let throttle = LogThrottle::default();
        let start = Instant::now();
        assert_eq!(throttle.log(start), Some(0));
        assert_eq!(throttle.log(start + INTERVAL / 2), None);
        assert_eq!(throttle.log(start + INTERVAL / 2), None);
        assert_eq!(throttle.log(start + INTERVAL), Some(2));
        assert_eq!(throttle.log(start + INTERVAL * 3), Some(0));
    }
}
