//! How many of something each one has at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// How many there are of each.
#[derive(Debug)]
pub struct Counts<K> {
    /// 0 for no limit.
    max: usize,
    by_key: Mutex<HashMap<K, usize>>,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct One<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

/// There are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<K: Hash + Eq + Clone> Counts<K> {
    /// At most so many of each, or any number if that is 0.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, by_key: Mutex::default() })
    }

    /// One more. Nobody is none.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn one_more(self: &Arc<Self>, key: Option<K>) -> Result<Option<One<K>>, Full> {
        let Some(key) = key.filter(|_| 0 < self.max) else { return Ok(None) };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_key.entry(key.clone()).or_default();
        if self.max <= *count {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(One { counts: Arc::clone(self), key }))
    }
}

impl<K: Hash + Eq> Drop for One<K> {
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
        let counts = Counts::new(2);
        let one = counts.one_more(Some("a")).unwrap();
        let _two = counts.one_more(Some("a")).unwrap();
        assert_eq!(counts.one_more(Some("a")).unwrap_err(), Full);
        assert!(counts.one_more(Some("b")).unwrap().is_some());
        assert!(counts.one_more(None).unwrap().is_none());
        drop(one);
        assert!(counts.one_more(Some("a")).is_ok());
        assert_eq!(counts.by_key.lock().unwrap().len(), 1, "nobody who has none is remembered");
        assert!(Counts::new(0).one_more(Some("a")).unwrap().is_none(), "no limit");
    }
}
