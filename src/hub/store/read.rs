//! Reads: the events after a cursor in the order over all topics, and the gap before them.

use std::{
    num::NonZeroU64,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use crate::model::gap::{Gap, GapReason};
use crate::{
    hub::{
        store::{
            rings::Rings,
            topic::{Channel, Floor},
        },
        topic_set::{MERGED_MAX, ReadPlan, TopicSet},
    },
    model::{event::Event, event_id::EventId, topic::Topic},
};

/// Position in the order over all topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    /// Id up to which everything was read, or was reported as missing.
    pub after: EventId,
    /// Count of losses up to which all losses were reported to the reader.
    pub losses_seen: u64,
}

/// Version of the hub: the number of changes to its rings, and one. Not zero, so that an optional
/// version takes no more memory.
pub(crate) type Version = NonZeroU64;

/// Cursor, with the version of the hub at which it is complete.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub(crate) cursor: Cursor,
    /// Version of the hub up to which everything was read. `None` while there is more to read at
    /// once.
    pub(crate) complete_at: Option<Version>,
}

impl Position {
    /// Returns true if the last read found nothing only because it stopped before the head.
    pub fn has_more(&self) -> bool {
        self.complete_at.is_none()
    }

    /// Returns true if everything was read that was stored up to `version`.
    pub fn is_complete_as_of(&self, version: Version) -> bool {
        self.complete_at.is_some_and(|complete_at| version <= complete_at)
    }

    /// Returns the id up to which everything was read, or was reported as missing.
    pub fn after(&self) -> EventId {
        self.cursor.after
    }
}

/// Result of a read, without its events.
#[derive(Debug)]
pub(crate) struct Found {
    /// Gap, which must be sent before the events.
    pub gap: Option<Gap>,
    /// True if there is more to read at once.
    pub more: bool,
}

/// Largest size of the whole events that one read returns, counted in frames of
/// `text/event-stream`. It is the size of an HTTP/2 frame, and the most memory that a reader holds
/// after it stops reading.
pub const BATCH_MAX_BYTES: usize = 16 * 1024;
/// Largest number of timeline entries that one read checks, so that a reader of a quiet topic among
/// busy ones does not hold the lock for long.
const LOOKS_MAX: usize = 4_096;

impl Rings {
    /// Reads the events after the cursor, and moves the cursor: to the last event read, or to the
    /// head when there are no more, but not beyond `upto`, which must be after the cursor.
    ///
    /// The lock is held for the whole read, so the head cannot move between the reads of two rings,
    /// and ids never decrease from one read to the next.
    pub(crate) fn read(
        &self,
        topics: &TopicSet,
        cursor: &mut Cursor,
        upto: EventId,
        out: &mut Vec<Arc<Event>>,
    ) -> Found {
        let gap = self.gap(topics, cursor);
        cursor.losses_seen = self.losses;
        let mut batch = BatchBuilder { out, bytes: 0, last: None, upto };
        let stopped_at = match &topics.plan {
            ReadPlan::Few => self.read_merged(topics.names(), cursor.after, &mut batch),
            ReadPlan::All | ReadPlan::Many(_) => {
                self.read_timeline(topics, cursor.after, &mut batch)
            }
            ReadPlan::Matching(_) => match self.few_matching(topics) {
                Some(names) => self.read_merged(&names, cursor.after, &mut batch),
                None => self.read_timeline(topics, cursor.after, &mut batch),
            },
        };
        // A cursor can be newer than the head of a copy that has not read that far yet.
        cursor.after = stopped_at.unwrap_or(self.head.max(cursor.after));
        Found { gap, more: stopped_at.is_some() }
    }

    /// Returns the existing topics that match, unless they are too many to be merged. A reader that
    /// may see a few of very many topics must not have to skip the events of all the others.
    fn few_matching(&self, topics: &TopicSet) -> Option<Vec<Topic>> {
        let named = topics.names().iter().filter(|name| self.by_topic.contains_key(*name)).cloned();
        let with = |prefix: &Arc<str>| {
            let from_there = self.in_order.range::<str, _>((Included(&**prefix), Unbounded));
            let prefix = Arc::clone(prefix);
            from_there.take_while(move |topic| topic.as_str().starts_with(&*prefix)).cloned()
        };
        let all = named.chain(topics.prefixes().iter().flat_map(with));
        let mut few: Vec<_> = all.take(MERGED_MAX + 1).collect();
        let fit = few.len() <= MERGED_MAX;
        // A name can have one of the prefixes too, and a prefix can begin with another one.
        few.sort();
        few.dedup();
        fit.then_some(few)
    }

    /// Merges the rings of a few topics. Returns the id at which it stopped, if that is before the
    /// head.
    fn read_merged(
        &self,
        names: &[Topic],
        after: EventId,
        batch: &mut BatchBuilder<'_>,
    ) -> Option<EventId> {
        let channel = |name| self.channels.get(*self.by_topic.get(name)?);
        let mut rings =
            names.iter().filter_map(channel).map(|channel| channel.ring.after(after).peekable());
        let first = rings.next()?;
        let Some(second) = rings.next() else { return batch.fill(first) };
        let mut rings: Vec<_> = [first, second].into_iter().chain(rings).collect();
        batch.fill(std::iter::from_fn(|| {
            let oldest = rings.iter_mut().filter_map(|ring| Some((ring.peek()?.id, ring)));
            oldest.min_by_key(|(id, _)| *id).and_then(|(_, ring)| ring.next())
        }))
    }

    /// Reads the timeline. Returns the id at which it stopped, if that is before the head.
    fn read_timeline(
        &self,
        topics: &TopicSet,
        after: EventId,
        batch: &mut BatchBuilder<'_>,
    ) -> Option<EventId> {
        let wanted = |channel: usize| {
            topics.is_all() || self.channels.get(channel).is_some_and(|c| topics.contains(&c.topic))
        };
        let mut stop = after;
        for (looks, (id, channel, event)) in self.timeline.after(after).enumerate() {
            if batch.upto < id {
                return Some(batch.upto);
            }
            if LOOKS_MAX <= looks {
                return Some(stop);
            }
            if let Some(event) = event
                && wanted(channel)
            {
                if !batch.has_room(event) {
                    return Some(stop);
                }
                batch.push(event);
            }
            stop = id;
        }
        None
    }

    /// Returns the losses after the cursor that were not reported yet, as a gap.
    fn gap(&self, topics: &TopicSet, cursor: &Cursor) -> Option<Gap> {
        if self.floor_max <= cursor.after || self.losses == cursor.losses_seen {
            return None;
        }
        let missed = |floor: Floor| cursor.losses_seen < floor.lost_at && cursor.after < floor.id;
        let floor_of = |name: &Topic| {
            let channel = self.by_topic.get(name).and_then(|at| self.channels.get(*at));
            channel.map_or(self.forgotten, Channel::floor)
        };
        // Checks only topics with a loss since the last read, instead of all topics.
        let fresh = || {
            let since = cursor.losses_seen.saturating_add(1);
            let channels = self.lost.range(since..).filter_map(|(_, at)| self.channels.get(*at));
            channels.filter(|channel| missed(channel.floor())).map(|channel| &channel.topic)
        };
        let any_forgotten = missed(self.forgotten);
        let mut gone: Vec<Topic> = match &topics.plan {
            ReadPlan::All => fresh().cloned().collect(),
            ReadPlan::Matching(_) => {
                fresh().filter(|name| topics.contains(name)).cloned().collect()
            }
            ReadPlan::Many(_) if !any_forgotten => {
                fresh().filter(|name| topics.contains(name)).cloned().collect()
            }
            ReadPlan::Few | ReadPlan::Many(_) => {
                topics.names().iter().filter(|name| missed(floor_of(name))).cloned().collect()
            }
        };
        let mut upto = gone.iter().map(|name| floor_of(name).id).max();
        if any_forgotten && matches!(topics.plan, ReadPlan::All | ReadPlan::Matching(_)) {
            // The names of removed topics are not known: the gap can be in any topic.
            upto = upto.max(Some(self.forgotten.id));
            gone.clear();
        }
        gone.sort();
        if missed(self.skipped) {
            // The topic of a skipped event is not known.
            let reason = GapReason::LogChanged;
            let upto = upto.map_or(self.skipped.id, |upto| upto.max(self.skipped.id));
            return Some(Gap { reason, topics: Vec::new(), after: Some(cursor.after), upto });
        }
        let upto = upto?;
        let reason = if upto <= self.origin { self.origin_reason } else { GapReason::Evicted };
        Some(Gap { reason, topics: gone, after: Some(cursor.after), upto })
    }
}

struct BatchBuilder<'a> {
    out: &'a mut Vec<Arc<Event>>,
    bytes: usize,
    last: Option<EventId>,
    upto: EventId,
}

impl BatchBuilder<'_> {
    /// Returns true if the event fits into the batch. The first event always does: otherwise a
    /// large one would never be read.
    fn has_room(&self, event: &Event) -> bool {
        self.last.is_none() || self.bytes + event.frame().len() <= BATCH_MAX_BYTES
    }

    /// Adds events until one is beyond `upto` or has no room. Returns the id at which it stopped.
    fn fill<'e>(&mut self, events: impl Iterator<Item = &'e Arc<Event>>) -> Option<EventId> {
        for event in events {
            if self.upto < event.id {
                return Some(self.upto);
            }
            if !self.has_room(event) {
                return self.last;
            }
            self.push(event);
        }
        None
    }

    fn push(&mut self, event: &Arc<Event>) {
        self.bytes += event.frame().len();
        self.last = Some(event.id);
        self.out.push(Arc::clone(event));
    }
}
