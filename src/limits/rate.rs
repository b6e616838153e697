//! Limit on requests per second by key.

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
    /// Counter of the refused requests.
    refused: IntCounter,
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
        Self { limiter: quota.map(limiter), refused }
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
