//! Number of subscribers of each format.

use std::{collections::BTreeMap, sync::Mutex};

use crate::{hub::lock, model::encode::Format};

/// Number of subscribers by the name of their format. A name without subscribers is left out.
#[derive(Debug, Default)]
pub(crate) struct FormatCounts(Mutex<BTreeMap<&'static str, usize>>);

impl FormatCounts {
    /// Counts a subscriber.
    pub(crate) fn add(&self, format: Format) {
        *lock(&self.0).entry(format.name()).or_default() += 1;
    }

    /// Removes a subscriber that was counted.
    pub(crate) fn remove(&self, format: Format) {
        let mut counts = lock(&self.0);
        if let Some(count) = counts.get_mut(format.name()) {
            *count -= 1;
            if *count == 0 {
                counts.remove(format.name());
            }
        }
    }

    /// Returns the counts.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.0).clone()
    }
}
