//! Topic sets: the topics that a reader follows.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::model::topic::{Topic, TopicPattern, prefixes_of};

/// Topics that a reader follows. Two sets that select the same topics in the same way are equal.
#[derive(Debug, Clone)]
pub struct TopicSet {
    /// Names in order, each once.
    names: Arc<[Topic]>,
    pub(crate) plan: ReadPlan,
}

/// Method by which the events of a topic set are read.
#[derive(Debug, Clone)]
pub(crate) enum ReadPlan {
    /// Every topic, including topics that appear later.
    All,
    /// Small number of topics, whose rings are merged.
    Few,
    /// Topics that are too many to be merged: reading follows the timeline.
    Many(Arc<HashSet<Topic>>),
    /// Topics with one of the names or prefixes, including those that appear later.
    Matching(Arc<Matching>),
}

/// Names and prefixes.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    names: HashSet<Topic>,
    /// Prefixes in order, each once, with the dot at the end.
    prefixes: Vec<Arc<str>>,
    prefix_set: HashSet<Arc<str>>,
}

/// Memory of a group in addition to its topics, in bytes: the group itself, its first slots, and
/// its entry in the worker's map of groups.
const GROUP_BYTES: usize = 512;
/// Memory of a topic or prefix in addition to its name, in bytes: the allocation of the name, and
/// its entries in the group's list and set and in the worker's index, with the capacity that maps
/// keep free.
const FOLLOWED_BYTES: usize = 160;

/// Largest number of rings that are merged.
pub(crate) const MERGED_MAX: usize = 16;

impl TopicSet {
    /// Selects topics by name. Selects all topics if `names` is empty.
    pub fn new(mut names: Vec<Topic>) -> Self {
        names.sort();
        names.dedup();
        let plan = match names.len() {
            0 => ReadPlan::All,
            1..=MERGED_MAX => ReadPlan::Few,
            _ => ReadPlan::Many(Arc::new(names.iter().cloned().collect())),
        };
        Self { names: names.into(), plan }
    }

    /// Selects these topics and no others, even if there are none.
    pub fn only(names: impl Iterator<Item = Topic>) -> Self {
        Self::matching(&names.map(TopicPattern::Exact).collect::<Vec<_>>())
    }

    /// Selects all topics, including those that appear later.
    pub fn all() -> Self {
        Self::new(Vec::new())
    }

    /// Selects the topics that match one of the patterns, and none if there are no patterns.
    pub fn matching(patterns: &[TopicPattern]) -> Self {
        let mut matching = Matching::default();
        for pattern in patterns {
            match pattern {
                TopicPattern::All => return Self::all(),
                TopicPattern::Exact(topic) => drop(matching.names.insert(topic.clone())),
                TopicPattern::Prefix(prefix) => matching.prefixes.push(Arc::clone(prefix)),
            }
        }
        if matching.prefixes.is_empty() && !matching.names.is_empty() {
            return Self::new(matching.names.into_iter().collect());
        }
        matching.prefixes.sort();
        matching.prefixes.dedup();
        matching.prefix_set = matching.prefixes.iter().cloned().collect();
        let mut names: Vec<_> = matching.names.iter().cloned().collect();
        names.sort();
        Self { names: names.into(), plan: ReadPlan::Matching(Arc::new(matching)) }
    }

    /// Returns the names in order. Without names and [prefixes](Self::prefixes) the set may be all
    /// topics.
    pub fn names(&self) -> &Arc<[Topic]> {
        &self.names
    }

    /// Returns the prefixes in order, each with its dot.
    pub fn prefixes(&self) -> &[Arc<str>] {
        match &self.plan {
            ReadPlan::Matching(matching) => &matching.prefixes,
            _ => &[],
        }
    }

    /// Returns the estimated memory that a worker needs for a group that follows the set, in bytes.
    pub fn bytes(&self) -> usize {
        let names = self.names.iter().map(|name| name.as_str().len());
        let prefixes = self.prefixes().iter().map(|prefix| prefix.len());
        GROUP_BYTES + names.chain(prefixes).map(|len| len + FOLLOWED_BYTES).sum::<usize>()
    }

    /// Returns true if the set is all topics, including those that appear later.
    pub fn is_all(&self) -> bool {
        matches!(self.plan, ReadPlan::All)
    }

    /// Returns true if the patterns match every topic of the set, including those that appear
    /// later.
    pub fn is_within(&self, patterns: &[TopicPattern]) -> bool {
        let wider = Self::matching(patterns);
        let has_names = || self.names.iter().all(|name| wider.contains(name));
        let has_prefixes = || self.prefixes().iter().all(|prefix| wider.contains_prefix(prefix));
        wider.is_all() || !self.is_all() && has_names() && has_prefixes()
    }

    /// Returns true if the set contains every topic that matches a pattern, including those that
    /// appear later.
    pub fn contains_all_of(&self, pattern: &TopicPattern) -> bool {
        match pattern {
            TopicPattern::All => self.is_all(),
            TopicPattern::Exact(topic) => self.contains(topic),
            TopicPattern::Prefix(prefix) => self.contains_prefix(prefix),
        }
    }

    /// Returns true if the set contains every topic that begins with `prefix`, which ends with a
    /// dot.
    fn contains_prefix(&self, prefix: &str) -> bool {
        match &self.plan {
            ReadPlan::All => true,
            ReadPlan::Few | ReadPlan::Many(_) => false,
            ReadPlan::Matching(matching) => {
                prefixes_of(prefix).any(|wider| matching.prefix_set.contains(wider))
            }
        }
    }

    /// Returns true if the set contains a topic.
    pub fn contains(&self, topic: &Topic) -> bool {
        match &self.plan {
            ReadPlan::All => true,
            ReadPlan::Few => self.names.binary_search(topic).is_ok(),
            ReadPlan::Many(names) => names.contains(topic),
            ReadPlan::Matching(matching) => {
                let mut prefixes = topic.prefixes();
                matching.names.contains(topic)
                    || prefixes.any(|prefix| matching.prefix_set.contains(prefix))
            }
        }
    }
}

impl PartialEq for TopicSet {
    fn eq(&self, other: &Self) -> bool {
        self.is_all() == other.is_all()
            && self.names == other.names
            && self.prefixes() == other.prefixes()
    }
}

impl Eq for TopicSet {}

impl Hash for TopicSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_all().hash(state);
        self.names.hash(state);
        self.prefixes().hash(state);
    }
}
