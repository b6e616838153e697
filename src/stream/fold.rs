//! Folds: the newest events of each key, selected from all events between two positions.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    hub::{BATCH_MAX_BYTES, Position, ReadEvents, Reader},
    limits::budget::{Budget, Claim},
    model::{
        control::Folded,
        encode::Format,
        event::Event,
        event_id::EventId,
        gap::{Gap, GapReason},
    },
};

/// Limit of the bytes of the events that all folds hold. Such events stay in memory after they have
/// left their rings.
pub const FOLDS_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Limit of the bytes of the events that one fold holds. A single event may be larger.
const FOLD_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest number of events that one fold holds, and so of its keys.
pub const FOLD_EVENTS_MAX: usize = 10_000;
/// Memory of a held event and of its key in addition to the event's own, in bytes, as estimated.
const ENTRY_BYTES: usize = 256;
/// Number of reads after which a fold lets other tasks of the worker run.
const READS_PER_TURN: usize = 8;

/// Rule by which a fold selects events. Keys of different topics are different keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldRule {
    /// Key of an event.
    pub by: FoldBy,
    /// Number of the newest events of each key that are selected. At least 1.
    pub count: usize,
}

/// Key of an event in a fold, beside its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldBy {
    /// All events of a topic have the same key.
    Topic,
    /// Ordering key. All events of a topic without one have the same key.
    OrderingKey,
    /// Value of this attribute. All events of a topic without it have the same key.
    Attribute(Box<str>),
}

/// Treatment of a reader that cannot keep up (`slow=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// The reader gets all events that are still held, and a gap in place of the others.
    Gap,
    /// The reader gets only the newest event of each ordering key.
    Latest {
        /// True if the socket did not take all bytes since the reader last had everything.
        is_blocked: bool,
    },
}

/// Fold of the events of one stream. It reads until it has reached its end, and then gives the
/// selected events in order of their ids.
#[derive(Debug)]
pub struct Fold {
    rule: FoldRule,
    at: Position,
    from: EventId,
    /// Id up to which the fold reads.
    upto: EventId,
    gap: Option<Gap>,
    /// True if the reader is told how many events newer ones have replaced.
    is_counted: bool,
    selected: BTreeMap<EventId, Arc<Event>>,
    /// Selected events by key: the topic, or the topic, a space and the value.
    keys: HashMap<Box<str>, Key>,
    /// Key of the last event. Kept to save allocations.
    key: String,
    /// Memory of the selected events.
    claim: Claim,
    /// Buffer that reads fill. Empty between reads.
    events: Vec<Arc<Event>>,
}

/// Selected events of one key.
#[derive(Debug, Default)]
struct Key {
    /// Ids of the selected events, oldest first.
    ids: VecDeque<EventId>,
    /// Number of events that newer ones have replaced.
    folded: u64,
}

impl Slow {
    /// `slow=latest`, with a socket that has taken all bytes.
    pub const LATEST: Self = Self::Latest { is_blocked: false };

    /// Records whether the socket takes all bytes.
    pub(crate) fn set_blocked(&mut self, value: bool) {
        if let Self::Latest { is_blocked } = self {
            *is_blocked = value;
        }
    }

    /// Returns true if a fold begins when the reader has more than a batch to read.
    pub(crate) fn is_blocked(self) -> bool {
        matches!(self, Self::Latest { is_blocked: true })
    }
}

impl FoldRule {
    /// Selects the newest event of each key.
    pub fn newest(by: FoldBy) -> Self {
        Self { by, count: 1 }
    }

    /// Writes the key of an event.
    fn write_key(&self, event: &Event, key: &mut String) {
        key.clear();
        key.push_str(event.topic.as_str());
        let value = match &self.by {
            FoldBy::Topic => None,
            FoldBy::OrderingKey => event.ordering_key(),
            FoldBy::Attribute(name) => event.attribute(name),
        };
        if let Some(value) = value {
            // A topic's name has no space.
            key.push(' ');
            key.push_str(value);
        }
    }
}

impl Fold {
    /// Creates a fold of the events after `at` up to `upto`. Its events are claimed from `budget`.
    pub fn new(rule: FoldRule, at: Position, upto: EventId, budget: &Arc<Budget>) -> Self {
        Self {
            rule,
            at,
            from: at.after(),
            upto,
            gap: None,
            is_counted: false,
            selected: BTreeMap::new(),
            keys: HashMap::new(),
            key: String::new(),
            claim: budget.claim(),
            events: Vec::new(),
        }
    }

    /// Creates a fold for a reader that cannot keep up.
    pub fn of_slow_reader(at: Position, upto: EventId, budget: &Arc<Budget>) -> Self {
        let rule = FoldRule::newest(FoldBy::OrderingKey);
        Self { is_counted: true, ..Self::new(rule, at, upto, budget) }
    }

    /// Reads on, for a bounded time. Returns true if the fold has read everything.
    pub fn read(&mut self, reader: &Reader) -> bool {
        for _ in 0..READS_PER_TURN {
            if self.upto <= self.at.after() {
                return true;
            }
            let mut events = std::mem::take(&mut self.events);
            if let Some(gap) = reader.read_stored(self.upto, &mut self.at, &mut events) {
                self.add_gap(gap);
            }
            events.drain(..).for_each(|event| self.add(event));
            self.events = events;
        }
        self.upto <= self.at.after()
    }

    fn add(&mut self, event: Arc<Event>) {
        self.rule.write_key(&event, &mut self.key);
        if let Some(key) = self.keys.get_mut(&*self.key)
            && self.rule.count <= key.ids.len()
            && let Some(old) = key.ids.pop_front().and_then(|id| self.selected.remove(&id))
        {
            key.folded += 1;
            self.claim.shrink(old.size() + ENTRY_BYTES);
        }
        let size = event.size() + ENTRY_BYTES;
        while FOLD_EVENTS_MAX <= self.selected.len() || !self.claim_bytes(size) {
            let Some((id, oldest)) = self.selected.pop_first() else {
                self.keys.clear();
                return self.add_limit_gap(event.id);
            };
            self.drop_selected(id, &oldest);
        }
        // `drop_selected` writes the keys of other events.
        self.rule.write_key(&event, &mut self.key);
        if !self.keys.contains_key(&*self.key) {
            self.keys.insert(self.key.as_str().into(), Key::default());
        }
        let Some(key) = self.keys.get_mut(&*self.key) else { return };
        key.ids.push_back(event.id);
        self.selected.insert(event.id, event);
    }

    /// Claims the memory of an event. Returns false if other selected events must be dropped first.
    fn claim_bytes(&mut self, size: usize) -> bool {
        let has_room = self.selected.is_empty() || self.claim.bytes() + size <= FOLD_MAX_BYTES;
        has_room && self.claim.grow(size)
    }

    /// Drops the oldest selected event to free memory. The events of its key that were replaced are
    /// older, so the gap covers them too.
    fn drop_selected(&mut self, id: EventId, event: &Event) {
        self.claim.shrink(event.size() + ENTRY_BYTES);
        self.rule.write_key(event, &mut self.key);
        if let Some(key) = self.keys.get_mut(&*self.key) {
            (key.folded, _) = (0, key.ids.pop_front());
            if key.ids.is_empty() {
                self.keys.remove(&*self.key);
            }
        }
        self.add_limit_gap(id);
    }

    fn add_limit_gap(&mut self, upto: EventId) {
        let (reason, after) = (GapReason::FoldLimit, Some(self.from));
        self.add_gap(Gap { reason, topics: Vec::new(), after, upto });
    }

    fn add_gap(&mut self, gap: Gap) {
        match &mut self.gap {
            None => self.gap = Some(gap),
            Some(first) => {
                first.upto = first.upto.max(gap.upto);
                if first.topics != gap.topics {
                    first.topics.clear();
                }
            }
        }
    }

    /// Returns the position up to which the fold has read.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Returns the id right before the first selected event, or the position if there is none: a
    /// reader that resumes there has missed no selected event. `None` if there is a gap: the reader
    /// must get it first.
    pub fn start(&self) -> Option<EventId> {
        let first = self.selected.keys().next();
        let start = first.map_or(self.at.after(), |first| first.previous());
        self.gap.is_none().then_some(start)
    }

    /// Takes the gap, which must be sent before the events.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// Takes the numbers of events that newer ones of their key have replaced. `None` if there are
    /// none, or if the reader is not told.
    pub fn take_folded(&mut self) -> Option<Folded> {
        let mut folded = Folded::new(self.from, self.at.after());
        for (key, Key { folded: events, .. }) in self.keys.drain().filter(|(_, it)| 0 < it.folded) {
            folded.add(key.split_once(' ').map_or("", |(_, value)| value), events);
        }
        (self.is_counted && 0 < folded.events).then_some(folded)
    }

    /// Takes the next selected events: as many as fit into a batch. `None` if there are no more.
    pub fn next_events(&mut self, format: Format) -> Option<ReadEvents> {
        let mut bytes = 0;
        let fits = self.selected.values().take_while(|event| {
            bytes += event.frame().len();
            bytes <= BATCH_MAX_BYTES
        });
        self.events.extend(fits.cloned());
        if self.events.is_empty() {
            self.events.extend(self.selected.values().next().cloned());
        }
        let encoded = ReadEvents::encode(&self.events, format);
        self.events.clear();
        let newest = encoded.as_ref()?.newest();
        while let Some(first) = self.selected.first_entry().filter(|it| *it.key() <= newest) {
            self.claim.shrink(first.remove().size() + ENTRY_BYTES);
        }
        encoded
    }

    /// Returns true if all selected events were taken.
    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }
}
