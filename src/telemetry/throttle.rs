//! Logs the first of a burst, and how many there were when the next one is logged.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A subscription that is configured wrongly fails with every message: one line says as much as a
/// hundred thousand, and a flood must not fill the log.
#[derive(Debug, Default)]
pub struct LogThrottle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    unlogged: u64,
}

/// Things of one kind within this time are one burst.
const BURST: Duration = Duration::from_secs(10);

impl LogThrottle {
    /// Counts one. Returns how many were not logged since the last that was, if this one is to be.
    pub fn log(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged.is_some_and(|logged| now.duration_since(logged) < BURST) {
            state.unlogged += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_once_and_counted() {
        let burst = LogThrottle::default();
        let start = Instant::now();
        assert_eq!(burst.log(start), Some(0));
        assert_eq!(burst.log(start + BURST / 2), None);
        assert_eq!(burst.log(start + BURST / 2), None);
        assert_eq!(burst.log(start + BURST), Some(2));
        assert_eq!(burst.log(start + BURST * 3), Some(0));
    }
}
