//! Index of one worker's groups by the topics that they follow.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, Hash},
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::{
    hub::{
        SubscribeError,
        fanout::{
            group::{Group, GroupKey},
            notifier::PendingTopics,
            shared_filter::SharedFilters,
        },
    },
    limits::budget::Budget,
    model::{event_id::EventId, topic::Topic},
};

/// Groups of one worker. [`GroupKey::bytes`] estimates the memory of one group.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Memory for the groups of all workers.
    budget: Arc<Budget>,
    filters: SharedFilters,
    all: HashMap<GroupKey, Rc<Group>>,
    /// Groups that follow all topics, by their numbers.
    of_all_topics: HashMap<u64, Rc<Group>>,
    by_topic: Index<Topic>,
    by_prefix: Index<Arc<str>>,
    opened: u64,
}

/// Groups by topic or prefix. It is split into parts, because a map that grows or shrinks moves all
/// of its entries at once, which takes tens of milliseconds for half a million.
#[derive(Debug)]
struct Index<K> {
    parts: Box<[HashMap<K, Followers>]>,
    /// Hash that selects the part. Its keys are random: otherwise readers could choose names that
    /// are all in one part.
    hasher: RandomState,
    len: usize,
}

/// Groups that follow one topic or prefix. Most topics that a reader names are followed by one
/// group alone, and a map for each of them would take more memory than the name.
#[expect(
    clippy::box_collection,
    reason = "a map would triple the size of most entries, of one group"
)]
#[derive(Debug)]
enum Followers {
    One(Rc<Group>),
    Several(Box<HashMap<u64, Rc<Group>>>),
}

/// Number of entries that a map keeps capacity for. Above it, a map frees memory when three
/// quarters of its capacity are unused.
const ROOM_KEPT: usize = 64;
/// Number of parts. With the default of `--followed-bytes-max` each has at most some 6,000 entries.
const PARTS: usize = 64;

impl Groups {
    /// Creates the index of a worker without groups.
    pub(crate) fn new(budget: Arc<Budget>, filters_max: usize) -> Self {
        Self {
            budget,
            filters: SharedFilters::new(filters_max),
            all: HashMap::new(),
            of_all_topics: HashMap::new(),
            by_topic: Index::default(),
            by_prefix: Index::default(),
            opened: 0,
        }
    }

    /// Returns the group of `key`, and creates it if there is none: `head` returns the newest id.
    /// The memory of a new group is claimed from the budget until the group is dropped.
    ///
    /// # Errors
    /// Returns the limit that a new group would exceed.
    pub(crate) fn of(
        &mut self,
        mut key: GroupKey,
        head: impl FnOnce() -> EventId,
    ) -> Result<Rc<Group>, SubscribeError> {
        if let Some(group) = self.all.get(&key) {
            return Ok(Rc::clone(group));
        }
        if key.filter.as_ref().is_some_and(|filter| !self.filters.has_room(filter)) {
            return Err(SubscribeError::Filters);
        }
        let mut claim = self.budget.claim();
        if !claim.grow(key.bytes()) {
            return Err(SubscribeError::FollowedBytes);
        }
        self.opened += 1;
        let filter = key.filter.take().map(|filter| self.filters.acquire(filter));
        key.filter = filter.as_ref().map(|shared| shared.filter().clone());
        let group = Rc::new(Group::new(self.opened, key, filter, claim, head()));
        for name in group.topics().names().iter() {
            self.by_topic.add(name, &group);
        }
        for prefix in group.topics().prefixes() {
            self.by_prefix.add(prefix, &group);
        }
        if group.topics().is_all() {
            self.of_all_topics.insert(group.number(), Rc::clone(&group));
        }
        self.all.insert(group.key().clone(), Rc::clone(&group));
        Ok(group)
    }

    /// Removes a group that has no subscriber.
    pub(crate) fn remove(&mut self, group: &Group) {
        if self.all.remove(group.key()).is_some()
            && let Some(shared) = group.filter()
        {
            self.filters.release(&shared.filter);
        }
        self.of_all_topics.remove(&group.number());
        for name in group.topics().names().iter() {
            self.by_topic.remove(name.as_str(), group);
        }
        for prefix in group.topics().prefixes() {
            self.by_prefix.remove(prefix, group);
        }
        shrink(&mut self.all);
    }

    /// Adds the groups that `pending` notifies to `into`.
    pub(crate) fn find(&self, pending: &PendingTopics, into: &mut Vec<Rc<Group>>) {
        if pending.all_topics {
            into.extend(self.all.values().cloned());
            return;
        }
        for followers in pending.topics.iter().filter_map(|topic| self.by_topic.get(topic.as_str()))
        {
            followers.find(into);
        }
        if 0 < self.by_prefix.len {
            let prefixes = pending.topics.iter().flat_map(Topic::prefixes);
            for followers in prefixes.filter_map(|prefix| self.by_prefix.get(prefix)) {
                followers.find(into);
            }
        }
        if !pending.topics.is_empty() {
            into.extend(self.of_all_topics.values().cloned());
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| HashMap::new()).collect();
        Self { parts, hasher: RandomState::default(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone + Borrow<str>> Index<K> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are as good as the high ones"
    )]
    fn part(&self, key: &str) -> usize {
        self.hasher.hash_one(key) as usize % PARTS
    }

    fn get(&self, key: &str) -> Option<&Followers> {
        self.parts.get(self.part(key))?.get(key)
    }

    fn add(&mut self, key: &K, group: &Rc<Group>) {
        let part = self.part(key.borrow());
        match self.parts.get_mut(part).map(|part| part.entry(key.clone())) {
            Some(Entry::Occupied(mut followers)) => followers.get_mut().add(group),
            Some(Entry::Vacant(slot)) => {
                slot.insert(Followers::One(Rc::clone(group)));
                self.len += 1;
            }
            None => {}
        }
    }

    fn remove(&mut self, key: &str, group: &Group) {
        let part = self.part(key);
        let Some(part) = self.parts.get_mut(part) else { return };
        if part.get_mut(key).is_some_and(|followers| followers.remove(group)) {
            part.remove(key);
            self.len -= 1;
            shrink(part);
        }
    }
}

impl Followers {
    fn add(&mut self, group: &Rc<Group>) {
        match self {
            Self::One(first) => {
                let both = [first, group].map(|group| (group.number(), Rc::clone(group)));
                *self = Self::Several(Box::new(both.into()));
            }
            Self::Several(all) => drop(all.insert(group.number(), Rc::clone(group))),
        }
    }

    /// Removes a group. Returns true if there is no other one.
    fn remove(&mut self, group: &Group) -> bool {
        let all = match self {
            Self::One(only) => return only.number() == group.number(),
            Self::Several(all) => all,
        };
        all.remove(&group.number());
        shrink(all);
        let mut left = all.values();
        if let (Some(only), None) = (left.next().cloned(), left.next()) {
            *self = Self::One(only);
            return false;
        }
        all.is_empty()
    }

    fn find(&self, into: &mut Vec<Rc<Group>>) {
        match self {
            Self::One(only) => into.push(Rc::clone(only)),
            Self::Several(all) => into.extend(all.values().cloned()),
        }
    }
}

fn shrink<K: Hash + Eq, V>(map: &mut HashMap<K, V>) {
    if ROOM_KEPT < map.capacity() && map.len() * 4 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::TopicSet,
        model::{encode::LINES, filter::Filter},
    };

    fn key(names: &[&str]) -> GroupKey {
        let topics = TopicSet::new(names.iter().map(|name| name.parse().unwrap()).collect());
        GroupKey { topics, filter: None, format: LINES }
    }

    fn of(groups: &mut Groups, names: &[&str]) -> Result<Rc<Group>, SubscribeError> {
        groups.of(key(names), || EventId::ZERO)
    }

    fn notified(groups: &Groups, name: &str) -> Vec<u64> {
        let mut found = Vec::new();
        let pending = PendingTopics { topics: [name.parse().unwrap()].into(), all_topics: false };
        groups.find(&pending, &mut found);
        let mut numbers: Vec<_> = found.iter().map(|group| group.number()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn each_topic_finds_its_groups_while_groups_are_added_and_removed() {
        let mut groups = Groups::new(Budget::new(usize::MAX), 0);
        let group = |groups: &mut Groups, names: &[&str]| {
            let group = of(groups, names).unwrap();
            assert_eq!(of(groups, names).unwrap().number(), group.number());
            group
        };
        let one = group(&mut groups, &["aaa", "bbb"]);
        let two = group(&mut groups, &["aaa", "ccc"]);
        let three = group(&mut groups, &["aaa"]);
        assert_eq!(notified(&groups, "aaa"), [1, 2, 3]);
        assert_eq!(notified(&groups, "bbb"), [1]);
        assert_eq!(notified(&groups, "ddd"), [0; 0]);
        groups.remove(&one);
        groups.remove(&one);
        assert_eq!(notified(&groups, "aaa"), [2, 3]);
        assert_eq!(notified(&groups, "bbb"), [0; 0]);
        groups.remove(&three);
        assert!(matches!(groups.by_topic.get("aaa"), Some(Followers::One(_))));
        assert_eq!(notified(&groups, "aaa"), [2]);
        let four = group(&mut groups, &["aaa", "bbb"]);
        assert_eq!(notified(&groups, "aaa"), [2, 4]);
        groups.remove(&two);
        groups.remove(&four);
        assert!(groups.all.is_empty() && groups.by_topic.len == 0);
    }

    #[test]
    fn topics_without_a_group_use_no_memory_and_no_budget() {
        let cost = key(&["topic-000"]).topics.bytes();
        let budget = Budget::new(1_000 * cost);
        let mut groups = Groups::new(Arc::clone(&budget), 0);
        let name = |n: usize| format!("topic-{n:03}");
        let all: Vec<_> = (0..1_000).flat_map(|n| of(&mut groups, &[&name(n)])).collect();
        assert_eq!((all.len(), budget.bytes()), (1_000, 1_000 * cost));
        assert_eq!(of(&mut groups, &["one-more"]).unwrap_err(), SubscribeError::FollowedBytes);
        assert!(groups.by_topic.len == 1_000, "who is refused leaves nothing behind");
        assert!(of(&mut groups, &["topic-000"]).is_ok(), "shared, and paid for");
        for group in &all {
            groups.remove(group);
        }
        drop(all);
        assert_eq!(budget.bytes(), 0);
        let largest = groups.by_topic.parts.iter().map(HashMap::capacity).max();
        assert!(groups.all.capacity() <= ROOM_KEPT && largest <= Some(ROOM_KEPT));
    }

    #[test]
    fn filters_are_limited_and_shared_whatever_their_form_and_their_topics() {
        let mut groups = Groups::new(Budget::new(usize::MAX), 2);
        let mut of = |names: &[&str], filter: &str| {
            let filter = Some(Filter::parse(filter).unwrap());
            groups.of(GroupKey { filter, ..key(names) }, || EventId::ZERO)
        };
        let one = of(&["aaa"], "attributes:a AND attributes:b").unwrap();
        let same = of(&["aaa"], "(attributes:b) AND (attributes:a)").unwrap();
        assert_eq!(same.number(), one.number());
        let two = of(&["aaa"], "attributes:a").unwrap();
        let three = of(&["bbb"], "attributes:a").unwrap();
        let filters = [&two, &three].map(|group| &group.filter().unwrap().filter);
        assert!(Rc::ptr_eq(filters[0], filters[1]));
        let refused = of(&["bbb"], "attributes:c").unwrap_err();
        assert_eq!(refused, SubscribeError::Filters);
        groups.remove(&two);
        groups.remove(&two);
        let of_c = |groups: &mut Groups| {
            let filter = Some(Filter::parse("attributes:c").unwrap());
            groups.of(GroupKey { filter, ..key(&["bbb"]) }, || EventId::ZERO)
        };
        assert_eq!(of_c(&mut groups).unwrap_err(), SubscribeError::Filters);
        groups.remove(&three);
        of_c(&mut groups).unwrap();
    }
}
