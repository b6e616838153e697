//! The groups of one worker, and which of them follow a topic.

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
        fanout::{group::Group, notifier::PendingTopics},
        topic_set::TopicSet,
    },
    limits::budget::Budget,
    model::topic::Topic,
};

/// All groups of one worker. [`TopicSet::bytes`] is an estimate of what one of them takes here.
#[derive(Debug)]
pub(crate) struct Groups {
    /// All topics.
    everything: TopicSet,
    all: HashMap<TopicSet, Rc<Group>>,
    by_topic: Index<Topic>,
    by_prefix: Index<Arc<str>>,
    opened: u64,
}

/// Which groups follow a topic or a prefix. It is in parts, because a map that grows or shrinks
/// moves all of its entries at once: of half a million that takes tens of milliseconds.
#[derive(Debug)]
struct Index<K> {
    parts: Box<[HashMap<K, Followers>]>,
    /// Decides on the part. Random, or readers could choose names that are all in one.
    hasher: RandomState,
    len: usize,
}

/// The groups that follow one topic or prefix. Most topics that a reader names are followed by its
/// group alone, and a map for each of them would take more memory than the name.
#[expect(
    clippy::box_collection,
    reason = "a map would triple the size of most entries, of one group"
)]
#[derive(Debug)]
enum Followers {
    Permit(Rc<Group>),
    Several(Box<HashMap<u64, Rc<Group>>>),
}

/// Maps keep room for so many entries. They give more than that back when three quarters of it are
/// unused.
const ROOM_KEPT: usize = 64;
/// With the default of `--followed-bytes-max` each has at most some 6,000 entries.
const PARTS: usize = 64;

impl Default for Groups {
    fn default() -> Self {
        Self {
            everything: TopicSet::all(),
            all: HashMap::new(),
            by_topic: Index::default(),
            by_prefix: Index::default(),
            opened: 0,
        }
    }
}

impl Groups {
    /// The group of these topics, made if need be. `budget` pays for a new one until it is dropped.
    /// None when the budget has not as much left.
    pub(crate) fn of(&mut self, topics: TopicSet, budget: &Arc<Budget>) -> Option<Rc<Group>> {
        if let Some(group) = self.all.get(&topics) {
            return Some(Rc::clone(group));
        }
        let mut claim = budget.claim();
        if !claim.grow(topics.bytes()) {
            return None;
        }
        self.opened += 1;
        let group = Rc::new(Group::new(self.opened, topics, claim));
        for name in group.topics().names().iter() {
            self.by_topic.add(name, &group);
        }
        for prefix in group.topics().prefixes() {
            self.by_prefix.add(prefix, &group);
        }
        self.all.insert(group.topics().clone(), Rc::clone(&group));
        Some(group)
    }

    /// Forgets a group that nobody is in.
    pub(crate) fn remove(&mut self, group: &Group) {
        self.all.remove(group.topics());
        for name in group.topics().names().iter() {
            self.by_topic.remove(name.as_str(), group);
        }
        for prefix in group.topics().prefixes() {
            self.by_prefix.remove(prefix, group);
        }
        shrink(&mut self.all);
    }

    /// Adds the groups that are to be told of what has rung.
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
        if !pending.topics.is_empty()
            && let Some(group) = self.all.get(&self.everything)
        {
            into.push(Rc::clone(group));
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
                slot.insert(Followers::Permit(Rc::clone(group)));
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
            Self::Permit(first) => {
                let both = [first, group].map(|group| (group.number(), Rc::clone(group)));
                *self = Self::Several(Box::new(both.into()));
            }
            Self::Several(all) => drop(all.insert(group.number(), Rc::clone(group))),
        }
    }

    /// Returns whether none is left.
    fn remove(&mut self, group: &Group) -> bool {
        let all = match self {
            Self::Permit(only) => return only.number() == group.number(),
            Self::Several(all) => all,
        };
        all.remove(&group.number());
        shrink(all);
        let mut left = all.values();
        if let (Some(only), None) = (left.next().cloned(), left.next()) {
            *self = Self::Permit(only);
            return false;
        }
        all.is_empty()
    }

    fn find(&self, into: &mut Vec<Rc<Group>>) {
        match self {
            Self::Permit(only) => into.push(Rc::clone(only)),
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

    fn topics(names: &[&str]) -> TopicSet {
        TopicSet::new(names.iter().map(|name| name.parse().unwrap()).collect())
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
    fn each_topic_finds_its_followers_while_they_come_and_go() {
        let (budget, mut groups) = (Budget::new(usize::MAX), Groups::default());
        let group = |groups: &mut Groups, names: &[&str]| {
            let group = groups.of(topics(names), &budget).unwrap();
            assert_eq!(groups.of(topics(names), &budget).unwrap().number(), group.number());
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
        assert!(matches!(groups.by_topic.get("aaa"), Some(Followers::Permit(_))));
        assert_eq!(notified(&groups, "aaa"), [2]);
        let four = group(&mut groups, &["aaa", "bbb"]);
        assert_eq!(notified(&groups, "aaa"), [2, 4]);
        groups.remove(&two);
        groups.remove(&four);
        assert!(groups.all.is_empty() && groups.by_topic.len == 0);
    }

    #[test]
    fn what_is_followed_no_more_takes_no_room_and_no_budget() {
        let cost = topics(&["topic-000"]).bytes();
        let (budget, mut groups) = (Budget::new(1_000 * cost), Groups::default());
        let name = |n: usize| format!("topic-{n:03}");
        let all: Vec<_> =
            (0..1_000).filter_map(|n| groups.of(topics(&[&name(n)]), &budget)).collect();
        assert_eq!((all.len(), budget.bytes()), (1_000, 1_000 * cost));
        assert!(groups.of(topics(&["one-more"]), &budget).is_none());
        assert!(groups.by_topic.len == 1_000, "who is refused leaves nothing behind");
        assert!(groups.of(topics(&["topic-000"]), &budget).is_some(), "shared, and paid for");
        for group in &all {
            groups.remove(group);
        }
        drop(all);
        assert_eq!(budget.bytes(), 0);
        let largest = groups.by_topic.parts.iter().map(HashMap::capacity).max();
        assert!(groups.all.capacity() <= ROOM_KEPT && largest <= Some(ROOM_KEPT));
    }
}
