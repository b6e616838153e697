//! How often someone may do something.

use std::{fmt, hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use prometheus::IntCounter;

type Limiter<K> = RateLimiter<
    K,
    HashMapStateStore<K>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// So many per second of each, which may also come all at once.
pub struct RateLimit<K: Hash + Eq + Clone> {
    /// None for no limit.
    limiter: Option<Limiter<K>>,
    /// Counts those that were too many.
    met: IntCounter,
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").field("met", &self.met).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// `per_second` 0 is no limit.
    pub fn new(per_second: u32, met: IntCounter) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let limiter = |quota| RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock);
        Self { limiter: quota.map(limiter), met }
    }

    /// One more of this one. Nobody is none.
    ///
    /// # Errors
    /// With how long it is to wait, when it is one too many.
    pub fn try_acquire(&self, key: Option<K>) -> Result<(), Duration> {
        let (Some(limiter), Some(key)) = (&self.limiter, key) else { return Ok(()) };
        limiter.check_key(&key).map_err(|not_until| {
            self.met.inc();
            not_until.wait_time_from(MonotonicClock.now())
        })
    }

    /// Forgets those that have been quiet for long enough to be new ones. To be called
    /// about once a second, so that no more are known than came within about two.
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
        RateLimit::new(per_second, IntCounter::new("met", "met").unwrap())
    }

    #[test]
    fn each_address_has_its_own_and_waits_for_more() {
        let rate = rate(2);
        let (one, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        assert!(rate.try_acquire(one).is_ok() && rate.try_acquire(one).is_ok());
        let wait = rate.try_acquire(one).unwrap_err();
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        assert_eq!(rate.met.get(), 1);
        assert!(rate.try_acquire(other).is_ok());
        assert!(rate.try_acquire(None).is_ok(), "nobody to tell apart");
    }

    #[test]
    fn none_is_no_limit() {
        let rate = rate(0);
        assert!((0..1_000).all(|_| rate.try_acquire("192.0.2.1".parse().ok()).is_ok()));
    }

    #[test]
    fn who_has_been_quiet_is_forgotten() {
        // A thousandth of a second is long enough to be a new one.
        let rate = rate(1_000);
        for n in 0..100 {
            assert!(rate.try_acquire(Some([192, 0, 2, n].into())).is_ok());
        }
        let known = || rate.limiter.as_ref().unwrap().len();
        assert_eq!(known(), 100);
        let start = std::time::Instant::now();
        while 0 < known() {
            assert!(start.elapsed() < Duration::from_secs(10));
            rate.sweep();
        }
    }
}
