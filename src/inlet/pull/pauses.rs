//! Pauses between the streams of one subscription.

use std::time::Duration;

use crate::backplane::follower::Backoff;

/// Age of a stream from which on the pause after its end is the shortest one again.
const RESET_AGE: Duration = Duration::from_secs(30);

/// Pauses that grow while streams end soon after they were begun.
#[derive(Debug, Default)]
pub(super) struct Pauses(Backoff);

impl Pauses {
    /// Returns the pause after a stream that ended, or could not be opened, at this age.
    pub(super) fn after(&mut self, age: Duration) -> Duration {
        if RESET_AGE <= age {
            self.0.reset();
        }
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const FIRST_MAX: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_a_cap() {
        let mut pauses = Pauses::default();
        for n in 0..40 {
            let pause = pauses.after(SOON);
            let max = LONGEST.min(FIRST_MAX * (1 << n.min(10)));
            assert!((max / 2..=max).contains(&pause), "pause {n}: {pause:?}, expected {max:?}");
        }
    }

    #[test]
    fn a_stream_that_lived_for_30_s_resets_the_pauses() {
        let mut pauses = Pauses::default();
        for _ in 0..10 {
            pauses.after(SOON);
        }
        assert!(LONGEST / 2 <= pauses.after(Duration::from_secs(29)));
        assert!(pauses.after(Duration::from_secs(30)) <= FIRST_MAX);
        let second = pauses.after(SOON);
        assert!((FIRST_MAX..=FIRST_MAX * 2).contains(&second), "the second one: {second:?}");
    }
}
