//! Limit on concurrent uses by key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Limit on the number of [`Permit`]s that one key holds at a time.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit<K> {
    /// Largest number of permits of one key; 0: no limit.
    max: usize,
    /// Number of permits by key. Keys without permits are removed.
    by_key: Mutex<HashMap<K, usize>>,
}

/// Permission for one use. Dropping the permit ends the use.
#[derive(Debug)]
pub(crate) struct Permit<K: Hash + Eq> {
    limit: Arc<ConcurrencyLimit<K>>,
    key: K,
}

/// Error for a key that holds the largest number of permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConcurrencyLimitError;

impl<K: Hash + Eq + Clone> ConcurrencyLimit<K> {
    /// Creates a limit of `max` permits for each key; 0: no limit.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, by_key: Mutex::default() })
    }

    /// Takes a permit for `key`. Returns `None` when nothing is counted: without a key, or without
    /// a limit.
    ///
    /// # Errors
    /// Fails when `key` holds the largest number of permits.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        key: Option<K>,
    ) -> Result<Option<Permit<K>>, ConcurrencyLimitError> {
        let Some(key) = key.filter(|_| 0 < self.max) else { return Ok(None) };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_key.entry(key.clone()).or_default();
        if self.max <= *count {
            return Err(ConcurrencyLimitError);
        }
        *count += 1;
        Ok(Some(Permit { limit: Arc::clone(self), key }))
    }
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut by_key = self.limit.by_key.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn dropped_permits_are_not_counted() {
        let limit = ConcurrencyLimit::new(2);
        let first = limit.try_acquire(Some("a")).unwrap();
        let _second = limit.try_acquire(Some("a")).unwrap();
        assert_eq!(limit.try_acquire(Some("a")).unwrap_err(), ConcurrencyLimitError);
        assert!(limit.try_acquire(Some("b")).unwrap().is_some());
        assert!(limit.try_acquire(None).unwrap().is_none());
        drop(first);
        assert!(limit.try_acquire(Some("a")).is_ok());
        assert_eq!(limit.by_key.lock().unwrap().len(), 1, "keys without permits are removed");
        assert!(ConcurrencyLimit::new(0).try_acquire(Some("a")).unwrap().is_none(), "no limit");
    }
}
