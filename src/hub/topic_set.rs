//! Which topics a reader follows.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::model::topic::{Topic, TopicPattern};

/// Which topics a reader follows. Two that choose the same are equal.
#[derive(Debug, Clone)]
pub struct TopicSet {
    /// In order, each once.
    names: Arc<[Topic]>,
    pub(crate) plan: ReadPlan,
}

/// How they are read.
#[derive(Debug, Clone)]
pub(crate) enum ReadPlan {
    /// All there are, those too that appear later.
    All,
    /// A few, whose rings are merged.
    Few,
    /// So many that following the timeline costs less than a look into each ring.
    Many(Arc<HashSet<Topic>>),
    /// Those that have a name or begin with a prefix, those too that appear later.
    Matching(Arc<Matching>),
}

/// Names and prefixes.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    names: HashSet<Topic>,
    /// In order, each once, with the dot at the end.
    prefixes: Vec<Arc<str>>,
    prefix_set: HashSet<Arc<str>>,
}

/// What a group takes beside its topics, in bytes: itself, its first places, and its entry in the
/// worker's map of groups.
const GROUP_BYTES: usize = 512;
/// What a topic or prefix that a group follows takes beside its name, in bytes: the name's
/// allocation, and its entries in the group's list and set and in the worker's index, each with the
/// room that a map keeps free.
const FOLLOWED_BYTES: usize = 160;

/// Up to so many rings are merged.
pub(crate) const MERGED_MAX: usize = 16;

impl TopicSet {
    /// All topics if none is named.
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

    /// These and no others, not even if there are none.
    pub fn only(names: impl Iterator<Item = Topic>) -> Self {
        Self::matching(&names.map(TopicPattern::Exact).collect::<Vec<_>>())
    }

    /// Those there are and those that will be.
    pub fn all() -> Self {
        Self::new(Vec::new())
    }

    /// Those that match one of the patterns: none at all if there are no patterns.
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

    /// The names in order. Without names and [prefixes](Self::prefixes) it may be all.
    pub fn names(&self) -> &Arc<[Topic]> {
        &self.names
    }

    /// The prefixes in order, each with its dot.
    pub fn prefixes(&self) -> &[Arc<str>] {
        match &self.plan {
            ReadPlan::Matching(matching) => &matching.prefixes,
            _ => &[],
        }
    }

    /// About how many bytes of memory a worker needs for a group that follows them.
    pub fn bytes(&self) -> usize {
        let names = self.names.iter().map(|name| name.as_str().len());
        let prefixes = self.prefixes().iter().map(|prefix| prefix.len());
        GROUP_BYTES + names.chain(prefixes).map(|len| len + FOLLOWED_BYTES).sum::<usize>()
    }

    /// Whether they are all that there are and will be.
    pub fn is_all(&self) -> bool {
        matches!(self.plan, ReadPlan::All)
    }

    /// Whether the patterns match all of them, those too that will be.
    pub fn is_within(&self, patterns: &[TopicPattern]) -> bool {
        let has_all = patterns.contains(&TopicPattern::All);
        let wider = Self::matching(patterns);
        let within = |prefix: &Arc<str>| {
            patterns.iter().any(|pattern| match pattern {
                TopicPattern::Prefix(wider) => prefix.starts_with(&**wider),
                _ => false,
            })
        };
        let names = || self.names.iter().all(|name| wider.contains(name));
        has_all || !self.is_all() && names() && self.prefixes().iter().all(within)
    }

    /// Whether a topic is one of them.
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
