//! Cache of parsed filters.

use std::{collections::HashMap, mem};

use crate::model::filter::{Filter, FilterError};

/// Filters by their texts, so that many readers with the same text share one filter, which is
/// parsed once. Keeps at least the last [`RECENT_MAX`] texts that were used, and at most twice as
/// many.
#[derive(Debug, Default)]
pub struct FilterCache {
    recent: HashMap<Box<str>, Filter>,
    /// Texts that were recent before. Dropped when as many others are recent.
    older: HashMap<Box<str>, Filter>,
}

/// Number of recent texts. The longest filter takes about 12 KB with its text.
const RECENT_MAX: usize = 128;

impl FilterCache {
    /// Returns the filter of a text, and parses it if it is not in the cache.
    ///
    /// # Errors
    /// Fails like [`Filter::parse`]. A text with an error is not kept.
    pub fn parse(&mut self, text: &str) -> Result<Filter, FilterError> {
        if let Some(filter) = self.recent.get(text) {
            return Ok(filter.clone());
        }
        let filter = match self.older.remove(text) {
            Some(filter) => filter,
            None => Filter::parse(text)?,
        };
        if RECENT_MAX <= self.recent.len() {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(text.into(), filter.clone());
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_text_is_parsed_once_while_it_is_used_and_the_cache_is_bounded() {
        let mut cache = FilterCache::default();
        let often = "attributes:often AND attributes:a";
        let first = cache.parse(often).unwrap();
        for n in 0..10 * RECENT_MAX {
            let other = format!("attributes:a{n}");
            assert_eq!(cache.parse(&other).unwrap(), Filter::parse(&other).unwrap());
            assert!(Arc::ptr_eq(&cache.parse(often).unwrap().0, &first.0), "parsed again");
            assert!(cache.recent.len() + cache.older.len() <= 2 * RECENT_MAX);
        }
        let known = cache.recent.len() + cache.older.len();
        for wrong in ["attributes.a", "", "attributes:a OR"] {
            assert_eq!(cache.parse(wrong).unwrap_err(), Filter::parse(wrong).unwrap_err());
        }
        assert_eq!(cache.recent.len() + cache.older.len(), known, "errors are not kept");
    }
}
