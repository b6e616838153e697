//! Limit on requests, or on messages, per second by key.

use std::{fmt, hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use prometheus::IntCounter;

/// Limiter of the `governor` crate, by key and with the monotonic clock.
type Limiter<K> = RateLimiter<
    K,
    HashMapStateStore<K>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// Limit on the requests of one key: N per second, of which all N may come at once.
pub struct RateLimit<K: Hash + Eq + Clone> {
    /// `None` when there is no limit.
    limiter: Option<Limiter<K>>,
    per_second: u32,
    /// Counter of the refused requests.
    refused: IntCounter,
}

/// Reason why several requests at once exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitError {
    /// Time after which the requests are allowed.
    Wait(Duration),
    /// Largest number of requests that the limit allows at once, which they exceed.
    TooMany(u32),
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// Creates a limit of `per_second` requests for each key; 0: no limit. Refused requests are
    /// counted in `refused`.
    pub fn new(per_second: u32, refused: IntCounter) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let limiter = |quota| RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock);
        Self { limiter: quota.map(limiter), per_second, refused }
    }

    /// Counts one request of `key`. A request without a key is never limited.
    ///
    /// # Errors
    /// Returns the time until the next request is allowed when the request exceeds the limit.
    pub fn try_acquire(&self, key: Option<K>) -> Result<(), Duration> {
        let (Some(limiter), Some(key)) = (&self.limiter, key) else { return Ok(()) };
        limiter.check_key(&key).map_err(|not_until| {
            self.refused.inc();
            not_until.wait_time_from(MonotonicClock.now())
        })
    }

    /// Counts `count` requests of `key` at once: all of them or none. Requests without a key are
    /// never limited.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    pub fn try_acquire_many(&self, key: Option<K>, count: usize) -> Result<(), RateLimitError> {
        let (Some(limiter), Some(key)) = (&self.limiter, key) else { return Ok(()) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        let refusal = match limiter.check_key_n(&key, count) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => {
                RateLimitError::Wait(not_until.wait_time_from(MonotonicClock.now()))
            }
            Err(_) => RateLimitError::TooMany(self.per_second),
        };
        self.refused.inc();
        Err(refusal)
    }

    /// Removes the keys that have their full quota again. Called about once a second, so that the
    /// memory is bounded by the keys of about the last two seconds.
    pub fn sweep(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn rate(per_second: u32) -> RateLimit<IpAddr> {
        RateLimit::new(per_second, IntCounter::new("refused", "refused").unwrap())
    }

    #[test]
    fn each_key_has_its_own_limit() {
        let rate = rate(2);
        let (one, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        assert!(rate.try_acquire(one).is_ok() && rate.try_acquire(one).is_ok());
        let wait = rate.try_acquire(one).unwrap_err();
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        assert_eq!(rate.refused.get(), 1);
        assert!(rate.try_acquire(other).is_ok());
        assert!(rate.try_acquire(None).is_ok(), "no key");
    }

    #[test]
    fn several_at_once_are_counted_together_or_not_at_all() {
        let rate = rate(10);
        let one = || "192.0.2.1".parse().ok();
        assert_eq!(rate.try_acquire_many(one(), 11), Err(RateLimitError::TooMany(10)));
        assert_eq!(rate.try_acquire_many(one(), 7), Ok(()));
        assert!(matches!(rate.try_acquire_many(one(), 9), Err(RateLimitError::Wait(_))));
        assert_eq!(rate.try_acquire_many(one(), 3), Ok(()), "nothing of the nine was counted");
        assert_eq!(rate.try_acquire_many(one(), 0), Ok(()));
        assert_eq!(rate.try_acquire_many(None, 11), Ok(()), "no key");
        assert_eq!(rate.refused.get(), 2);
    }

    #[test]
    fn zero_is_no_limit() {
        let rate = rate(0);
        assert!((0..1_000).all(|_| rate.try_acquire("192.0.2.1".parse().ok()).is_ok()));
    }

    #[test]
    fn quiet_keys_are_removed() {
        // After one thousandth of a second a key has its full quota again.
        let rate = rate(1_000);
        for n in 0..100 {
            assert!(rate.try_acquire(Some([192, 0, 2, n].into())).is_ok());
        }
        let keys = || rate.limiter.as_ref().unwrap().len();
        assert_eq!(keys(), 100);
        let start = std::time::Instant::now();
        while 0 < keys() {
            assert!(start.elapsed() < Duration::from_secs(10));
            rate.sweep();
        }
    }
}
