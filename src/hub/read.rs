//! Reading: what comes after a cursor, in the order over all topics, and what is missing of it.

use std::{collections::HashSet, sync::Arc};

use crate::{
    event::{Event, EventId},
    hub::{
        block::BLOCK_MAX_BYTES,
        channel::{Channel, Floor},
        rings::Rings,
    },
    message::Topic,
};

/// Which topics a reader follows.
#[derive(Debug, Clone)]
pub struct Topics {
    /// In order, each once. None for all.
    names: Arc<[Topic]>,
    way: Way,
}

/// How they are read.
#[derive(Debug, Clone)]
enum Way {
    /// All there are, those too that appear later.
    All,
    /// A few, whose rings are merged.
    Few,
    /// So many that following the timeline costs less than a look into each ring.
    Many(Arc<HashSet<Topic>>),
}

/// Up to so many rings are merged.
const MERGED_MAX: usize = 16;

impl Topics {
    /// All topics if none is named.
    pub fn new(mut names: Vec<Topic>) -> Self {
        names.sort();
        names.dedup();
        let way = match names.len() {
            0 => Way::All,
            1..=MERGED_MAX => Way::Few,
            _ => Way::Many(Arc::new(names.iter().cloned().collect())),
        };
        Self { names: names.into(), way }
    }

    /// Those there are and those that will be.
    pub fn all() -> Self {
        Self::new(Vec::new())
    }

    /// The names in order, none for all.
    pub fn names(&self) -> &Arc<[Topic]> {
        &self.names
    }
}

/// A place in the order over all topics.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// Everything up to here was read, or told as missing.
    pub after: EventId,
    /// Of all losses up to this count its reader was told.
    pub losses_seen: u64,
}

/// Events that a reader wanted are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub reason: GapReason,
    /// The topics that lost something; empty when it can be any that the reader follows.
    pub topics: Vec<Topic>,
    /// The cursor that something is missing after. None when it was not even an id.
    pub after: Option<EventId>,
    /// Nothing is missing after this.
    pub upto: EventId,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The rings are bounded, and they let go of it.
    Evicted,
    /// The cursor is from before this history began; all that is held follows.
    Restart,
    /// The cursor is no id, or beyond the newest one; reading goes on at the head.
    UnknownId,
    /// The log that this is a copy of may have forgotten something.
    LogChanged,
}

/// What a read found beside events.
#[derive(Debug)]
pub struct Found {
    /// To be told before any of the events.
    pub gap: Option<Gap>,
    /// There is more to read at once.
    pub more: bool,
}

/// How many places of the timeline one read looks at, so that a reader of a quiet topic among busy
/// ones does not hold the lock for long.
const LOOKS_MAX: usize = 4_096;

impl Rings {
    /// Reads what comes after the cursor, and moves it: to the last event read, or to the head when
    /// there is no more. All under one lock, so the head cannot move on between the look into one
    /// ring and the look into the next, and ids never decrease from one read to the next.
    pub fn read(&self, topics: &Topics, cursor: &mut Cursor, out: &mut Vec<Arc<Event>>) -> Found {
        let gap = self.gap(topics, cursor);
        cursor.losses_seen = self.losses;
        let mut batch = Batch { out, bytes: 0, last: None };
        let stopped_at = match &topics.way {
            Way::Few => self.read_merged(&topics.names, cursor.after, &mut batch),
            Way::All => self.read_timeline(None, cursor.after, &mut batch),
            Way::Many(names) => self.read_timeline(Some(names), cursor.after, &mut batch),
        };
        // A cursor can be ahead of a copy that has yet to read as far.
        cursor.after = stopped_at.unwrap_or(self.head.max(cursor.after));
        Found { gap, more: stopped_at.is_some() }
    }

    /// Returns where it stopped short of the head.
    fn read_merged(
        &self,
        names: &[Topic],
        after: EventId,
        batch: &mut Batch<'_>,
    ) -> Option<EventId> {
        let channel = |name| self.channels.get(*self.by_topic.get(name)?);
        let mut rings: Vec<_> = names
            .iter()
            .filter_map(channel)
            .map(|channel| channel.ring.after(after).peekable())
            .collect();
        loop {
            let oldest = rings
                .iter_mut()
                .filter_map(|ring| Some((ring.peek()?.id, ring)))
                .min_by_key(|(id, _)| *id);
            let event = oldest.and_then(|(_, ring)| ring.next())?;
            if !batch.has_room(event) {
                return batch.last;
            }
            batch.push(event);
        }
    }

    /// Returns where it stopped short of the head.
    fn read_timeline(
        &self,
        names: Option<&HashSet<Topic>>,
        after: EventId,
        batch: &mut Batch<'_>,
    ) -> Option<EventId> {
        let wanted = |channel: usize| match names {
            None => true,
            Some(names) => self.channels.get(channel).is_some_and(|c| names.contains(&c.topic)),
        };
        let mut stop = after;
        for (looks, (id, channel, event)) in self.timeline.after(after).enumerate() {
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

    /// What is gone of what comes after the cursor, and was not told yet.
    fn gap(&self, topics: &Topics, cursor: &Cursor) -> Option<Gap> {
        if self.floor_max <= cursor.after || self.losses == cursor.losses_seen {
            return None;
        }
        let missed = |floor: Floor| cursor.losses_seen < floor.lost_at && cursor.after < floor.id;
        let floor_of = |name: &Topic| {
            let channel = self.by_topic.get(name).and_then(|at| self.channels.get(*at));
            channel.map_or(self.forgotten, Channel::floor)
        };
        // Only those that lost something since the last look: no scan of all topics.
        let fresh = || {
            let since = cursor.losses_seen.saturating_add(1);
            let channels = self.lost.range(since..).filter_map(|(_, at)| self.channels.get(*at));
            channels.filter(|channel| missed(channel.floor())).map(|channel| &channel.topic)
        };
        let any_forgotten = missed(self.forgotten);
        let mut gone: Vec<Topic> = match &topics.way {
            Way::All => fresh().cloned().collect(),
            Way::Many(names) if !any_forgotten => {
                fresh().filter(|n| names.contains(*n)).cloned().collect()
            }
            Way::Few | Way::Many(_) => {
                topics.names.iter().filter(|n| missed(floor_of(n))).cloned().collect()
            }
        };
        let mut upto = gone.iter().map(|name| floor_of(name).id).max();
        if any_forgotten && matches!(topics.way, Way::All) {
            // Nobody knows the names of forgotten topics: it can be any.
            upto = upto.max(Some(self.forgotten.id));
            gone.clear();
        }
        gone.sort();
        let upto = upto?;
        let reason = if upto <= self.origin { self.origin_reason } else { GapReason::Evicted };
        Some(Gap { reason, topics: gone, after: Some(cursor.after), upto })
    }
}

struct Batch<'a> {
    out: &'a mut Vec<Arc<Event>>,
    bytes: usize,
    last: Option<EventId>,
}

impl Batch<'_> {
    /// For the first event always, or a large one would never be read.
    fn has_room(&self, event: &Event) -> bool {
        self.last.is_none() || self.bytes + event.frame.len() <= BLOCK_MAX_BYTES
    }

    fn push(&mut self, event: &Arc<Event>) {
        self.bytes += event.frame.len();
        self.last = Some(event.id);
        self.out.push(Arc::clone(event));
    }
}
