//! Shard: the subscribers of one worker and their shared state. Lives on that worker's thread.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::{
    hub::{
        Hub, SubscribeError,
        fanout::{
            batch::{ReadEvents, RecentReads, SharedRead},
            group::{Group, GroupKey},
            groups::Groups,
            hidden::GroupFilter,
            notifier::{Notifier, PendingTopics},
        },
        store::read::{Cursor, Found, Position, Version},
    },
    model::{event::Event, event_id::EventId, gap::Gap},
};

/// Subscribers of one worker.
#[derive(Debug)]
pub struct Shard {
    hub: Hub,
    notifier: Arc<Notifier>,
    groups: RefCell<Groups>,
    recent: RefCell<RecentReads>,
    /// Groups with more to read than one read returns.
    rescheduled: RefCell<Vec<Rc<Group>>>,
    /// Buffer that reads fill. Empty between reads.
    events: RefCell<Vec<Arc<Event>>>,
}

/// Result of one read.
#[derive(Debug)]
pub struct Read {
    /// Gap, which must be sent before the events.
    pub gap: Option<Gap>,
    /// Events after the cursor. `None` if there are none.
    pub events: Option<ReadEvents>,
    /// Version of the hub up to which everything was read. `None` if there is more to read at once.
    pub complete_at: Option<Version>,
}

/// Number of subscribers that are served before other tasks of the thread, such as pushes, run.
const YIELD_EVERY: usize = 64;
/// Share of [`YIELD_EVERY`] that the check of a group against its filter takes: it looks at up to
/// some thousand events, and readers choose the number of filters.
const CHECK_WEIGHT: usize = YIELD_EVERY / 8;
/// Shortest round of writes after which a wait is worthwhile.
const JOIN_FROM: Duration = Duration::from_millis(1);

impl Shard {
    pub(crate) fn new(hub: Hub, notifier: Arc<Notifier>, groups: Groups) -> Rc<Self> {
        Rc::new(Self {
            hub,
            notifier,
            groups: RefCell::new(groups),
            recent: RefCell::default(),
            rescheduled: RefCell::default(),
            events: RefCell::default(),
        })
    }

    /// Returns the hub that the subscribers read from.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Notifies subscribers when their topics have new events, as long as it is polled.
    ///
    /// A worker that gets new events before it has written the last ones to all subscribers is
    /// overloaded. Each write then costs it far more than the bytes in it. Such a worker waits for
    /// as long as its last round took, but at most `coalesce_max`, so that one write carries more
    /// events. A worker that is not overloaded never waits.
    pub async fn run(self: Rc<Self>, coalesce_max: Duration) {
        let (mut pending, mut groups, mut ready) =
            (PendingTopics::default(), Vec::new(), Vec::new());
        let mut was_behind = false;
        loop {
            self.notifier.notified(&mut pending).await;
            let start = Instant::now();
            groups.append(&mut self.rescheduled.borrow_mut());
            if !groups.is_empty() {
                // Other tasks run between the steps of a read that skips many events of other
                // topics.
                yield_now().await;
            }
            self.groups.borrow().find(&pending, &mut groups);
            groups.sort_unstable_by_key(|group| group.number());
            groups.dedup_by_key(|group| group.number());
            let (mut yields, mut since_yield) = (0, 0);
            for group in groups.drain(..) {
                let has_news = self.check(&group) || pending.all_topics;
                if group.filter().is_some() {
                    since_yield += CHECK_WEIGHT;
                    if YIELD_EVERY <= since_yield {
                        yield_now().await;
                        (yields, since_yield) = (yields + 1, 0);
                    }
                }
                if !has_news {
                    continue;
                }
                // The broadcast is served first, since single subscribers join it at its position.
                let broadcast = group.broadcast();
                while let Some(given) =
                    broadcast.as_ref().and_then(|all| all.write_pass(YIELD_EVERY - since_yield))
                {
                    since_yield += given;
                    if YIELD_EVERY <= since_yield {
                        yield_now().await;
                        (yields, since_yield) = (yields + 1, 0);
                    }
                }
                drop(broadcast);
                for first in (0..group.slots_len()).step_by(YIELD_EVERY) {
                    since_yield += group.notify_waiting(first..first + YIELD_EVERY, &mut ready);
                    if YIELD_EVERY <= since_yield {
                        yield_now().await;
                        (yields, since_yield) = (yields + 1, 0);
                    }
                }
            }
            if yields == 0 || coalesce_max.is_zero() {
                was_behind = false;
                continue;
            }
            // All woken tasks are before this one in the queue of the thread.
            yield_now().await;
            let took = start.elapsed();
            // Subscribers that have more to read than fits into one write gain nothing from a wait.
            let has_more = !self.rescheduled.borrow().is_empty();
            let is_behind = JOIN_FROM <= took && self.notifier.has_pending() && !has_more;
            // A single slow round can have any cause that stopped the thread for a moment.
            if is_behind && was_behind {
                sleep(took.min(coalesce_max)).await;
            }
            was_behind = is_behind;
        }
    }

    /// Notifies a group again.
    pub(crate) fn reschedule(&self, group: &Rc<Group>) {
        self.rescheduled.borrow_mut().push(Rc::clone(group));
        self.notifier.wake();
    }

    /// Adds a subscriber to the group of `key`.
    ///
    /// # Errors
    /// Returns the limit that a new group would exceed.
    pub(crate) fn enter(&self, key: GroupKey) -> Result<(Rc<Group>, usize), SubscribeError> {
        let group = self.groups.borrow_mut().of(key, || self.hub.head())?;
        self.notifier.add_listener();
        let slot = group.add_slot();
        Ok((group, slot))
    }

    /// Checks the new events of a notified group against its filter, once for all subscribers.
    /// Returns false if the filter hides all of them: then no subscriber has anything to do.
    fn check(&self, group: &Rc<Group>) -> bool {
        let Some(filter) = group.filter() else { return true };
        let mut at = filter.checked();
        let read = self.read(group, &mut at.cursor, EventId::MAX);
        at.complete_at = read.complete_at;
        let has_news = read.gap.is_some() || read.events.is_some();
        if has_news {
            filter.set_checked(at);
        }
        if at.has_more() {
            self.reschedule(group);
        }
        filter.take_due() || has_news
    }

    /// Removes a subscriber from its group.
    pub(crate) fn leave(&self, group: &Rc<Group>, slot: usize) {
        if group.remove_slot(slot) {
            self.groups.borrow_mut().remove(group);
        }
        self.notifier.remove_listener();
    }

    /// Reads the events of a group after `cursor`, up to `upto`, without encoding them, and moves
    /// the cursor. Returns also the version at which the result is complete.
    pub(crate) fn read_stored(
        &self,
        group: &Group,
        cursor: &mut Cursor,
        upto: EventId,
        out: &mut Vec<Arc<Event>>,
    ) -> (Found, Version) {
        match group.filter() {
            None => self.hub.read(group.topics(), cursor, upto, out),
            Some(GroupFilter { filter, .. }) => {
                self.hub.read_matching(filter, group.topics(), cursor, upto, out)
            }
        }
    }

    /// Reads the events after `cursor`, up to `upto`, for a subscriber of `group`, and moves the
    /// cursor.
    pub(crate) fn read(&self, group: &Group, cursor: &mut Cursor, upto: EventId) -> Read {
        if let Some(end) = group.filter().and_then(|filter| filter.end_of_span(cursor)) {
            *cursor = end.cursor;
            if upto <= end.after() || end.complete_at == Some(self.hub.version()) {
                return Read { gap: None, events: None, complete_at: end.complete_at };
            }
        }
        let recent = self.recent.borrow();
        let found = recent.find(group.number(), cursor);
        if let Some(read) = found.filter(|read| read.batch.newest <= upto) {
            *cursor = read.to;
            let events = Some(ReadEvents::Batch(read.batch.clone()));
            return Read { gap: None, events, complete_at: read.complete_at };
        }
        drop(recent);
        let mut out = self.events.borrow_mut();
        let from = *cursor;
        let (found, version) = self.read_stored(group, cursor, upto, &mut out);
        let mut complete_at = (!found.more).then_some(version);
        let events = ReadEvents::encode(&out, group.format());
        if let Some(events) = &events
            && out.last().is_some_and(|last| events.newest() < last.id)
        {
            // The other events did not fit. The next read returns them.
            (cursor.after, complete_at) = (events.newest(), None);
        }
        out.clear();
        if let Some(filter) = group.filter()
            && found.gap.is_none()
            && events.is_none()
        {
            filter.record_hidden(&from, Position { cursor: *cursor, complete_at });
        }
        if let (None, Some(ReadEvents::Batch(batch))) = (&found.gap, &events)
            && (1 < group.subscribers() || group.filter().is_some())
        {
            let (group, to, batch) = (group.number(), *cursor, batch.clone());
            self.recent.borrow_mut().remember(SharedRead { group, from, to, batch, complete_at });
        }
        Read { gap: found.gap, events, complete_at }
    }
}
