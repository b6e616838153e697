//! How much one reader, or one address, may have at once.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The limits of streams beside the total.
#[derive(Debug)]
pub struct StreamLimits {
    by_subject: Arc<Counts<Arc<str>>>,
    by_address: Arc<Counts<IpAddr>>,
}

/// Which limit was met: as in a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    Subject,
    Address,
}

impl Met {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
        }
    }

    /// What its reader is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Subject => "this subject has as many streams as it may (--streams-per-subject)",
            Self::Address => "this address has as many streams as it may (--streams-per-address)",
        }
    }
}

/// A stream is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    _subject: Option<One<Arc<str>>>,
    _address: Option<One<IpAddr>>,
}

/// How many there are of each.
#[derive(Debug)]
struct Counts<K> {
    /// 0 for no limit.
    max: usize,
    by_key: Mutex<HashMap<K, usize>>,
}

#[derive(Debug)]
struct One<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, by_key: Mutex::default() })
    }

    /// One more, unless there are as many as there may be.
    fn one_more(self: &Arc<Self>, key: Option<K>) -> Result<Option<One<K>>, ()> {
        let Some(key) = key.filter(|_| 0 < self.max) else { return Ok(None) };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_key.entry(key.clone()).or_default();
        if self.max <= *count {
            return Err(());
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

impl StreamLimits {
    /// 0 is no limit.
    pub fn new(per_subject: usize, per_address: usize) -> Self {
        Self { by_subject: Counts::new(per_subject), by_address: Counts::new(per_address) }
    }

    /// Counts one more stream.
    ///
    /// # Errors
    /// With the limit that it would go beyond.
    pub fn one_more(
        &self,
        address: Option<IpAddr>,
        subject: Option<&Arc<str>>,
    ) -> Result<Counted, Met> {
        Ok(Counted {
            _subject: self.by_subject.one_more(subject.cloned()).map_err(|()| Met::Subject)?,
            _address: self.by_address.one_more(address).map_err(|()| Met::Address)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_counts_no_more() {
        let limits = StreamLimits::new(2, 0);
        let alice: Arc<str> = "alice".into();
        let open = || limits.one_more(None, Some(&alice));
        let (first, second) = (open().unwrap(), open().unwrap());
        assert!(matches!(open(), Err(Met::Subject)));
        assert!(limits.one_more(None, Some(&"bob".into())).is_ok());
        assert!(limits.one_more(None, None).is_ok());
        drop(first);
        assert!(open().is_ok());
        drop(second);
        assert!(limits.by_subject.by_key.lock().unwrap().is_empty());
    }
}
