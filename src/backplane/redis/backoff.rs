//! How long to wait before the next attempt.

use std::time::Duration;

use rand::RngExt as _;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Waits that double up to a limit, each cut at random, so that replicas that lost the same server
/// do not all come back to it at once.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = self.0.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.0 = (self.0 * 2).min(LAST);
        wait
    }

    /// It went well: the next wait is a short one.
    pub fn reset(&mut self) {
        self.0 = FIRST;
    }
}
