//! How many of something each one has at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// How many there are of each.
#[derive(Debug)]
pub struct ConcurrencyLimit<K> {
    /// 0 for no limit.
    max: usize,
    by_key: Mutex<HashMap<K, usize>>,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq> {
    counts: Arc<ConcurrencyLimit<K>>,
    key: K,
}

/// There are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReachedError;

impl<K: Hash + Eq + Clone> ConcurrencyLimit<K> {
    /// At most so many of each, or any number if that is 0.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, by_key: Mutex::default() })
    }

    /// One more. Nobody is none.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn try_acquire(
        self: &Arc<Self>,
        key: Option<K>,
    ) -> Result<Option<Permit<K>>, LimitReachedError> {
        let Some(key) = key.filter(|_| 0 < self.max) else { return Ok(None) };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_key.entry(key.clone()).or_default();
        if self.max <= *count {
            return Err(LimitReachedError);
        }
        *count += 1;
        Ok(Some(Permit { counts: Arc::clone(self), key }))
    }
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut by_key = self.counts.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_counts_no_more() {
        let counts = ConcurrencyLimit::new(2);
        let one = counts.try_acquire(Some("a")).unwrap();
        let _two = counts.try_acquire(Some("a")).unwrap();
        assert_eq!(counts.try_acquire(Some("a")).unwrap_err(), LimitReachedError);
        assert!(counts.try_acquire(Some("b")).unwrap().is_some());
        assert!(counts.try_acquire(None).unwrap().is_none());
        drop(one);
        assert!(counts.try_acquire(Some("a")).is_ok());
        assert_eq!(counts.by_key.lock().unwrap().len(), 1, "nobody who has none is remembered");
        assert!(ConcurrencyLimit::new(0).try_acquire(Some("a")).unwrap().is_none(), "no limit");
    }
}
