//! Copy of the log in the rings. Two sources fill it: the reads of the tail, and the answers to
//! appends, which say what stands in the log up to the messages that were appended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::RedisResult;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    backplane::{
        outcome::Confirmed,
        redis::{append::Before, entry::Entry},
    },
    hub::Hub,
    model::{event_id::EventId, gap::GapReason, message::Message},
    telemetry::metrics::Metrics,
};

/// Time without an append after which the tail waits for entries on the server. While appends are
/// more frequent, their answers bring the entries, and each would also end such a wait.
const QUIET_AFTER: Duration = Duration::from_millis(3);
/// Longest time between two reads of the tail while appends are frequent. It reads renewals, and
/// notices that the server is no longer the master.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// Copy of the log: the only writer of the rings. The rings always hold a part of the log without a
/// hole, up to its newest entry. If a push wrote its message to the rings by itself, event 11 could
/// be there before event 10 of another replica.
#[derive(Debug)]
pub(crate) struct LogCopy {
    state: Mutex<State>,
    read_due: Notify,
}

#[derive(Debug)]
struct State {
    hub: Hub,
    metrics: Metrics,
    /// Newest entry that was copied.
    newest: EventId,
    /// Server that the tail reads from, while the tail is at the end of the log. Each connection of
    /// the tail has another allocation of the text.
    followed: Option<Arc<str>>,
    /// Time of the latest call that appends, or of its answer.
    last_append: Option<Instant>,
}

/// State of the copy at the time of a call that appends.
#[derive(Debug)]
pub(crate) struct Position {
    /// Newest entry that was copied.
    pub(crate) newest: EventId,
    followed: Option<Arc<str>>,
}

impl Position {
    /// Returns true if the answer to the call can fill the rings.
    pub(crate) fn is_followed(&self) -> bool {
        self.followed.is_some()
    }
}

impl LogCopy {
    /// Creates an empty copy in `hub`.
    pub(crate) fn new(hub: Hub, metrics: Metrics) -> Self {
        let (newest, followed, last_append) = (EventId::ZERO, None, None);
        let state = Mutex::new(State { hub, metrics, newest, followed, last_append });
        Self { state, read_due: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest entry that was copied.
    pub(crate) fn newest(&self) -> EventId {
        self.state().newest
    }

    /// Continues after `id`, and records a gap before it for the readers.
    pub(crate) fn restart_after(&self, id: EventId, reason: GapReason) {
        self.state().restart_after(id, reason);
    }

    /// Adds entries that the tail has read, and that follow the newest entry of the copy. `trimmed`
    /// is the newest id that had been trimmed from the log.
    pub(crate) fn add(&self, trimmed: EventId, entries: Vec<(EventId, Entry)>) {
        self.state().add(trimmed, entries);
    }

    /// Sets the server that the tail reads from. `None` when the tail is not at the end of the log,
    /// or has no connection: until then, answers to appends do not fill the rings.
    pub(crate) fn set_followed(&self, server: Option<Arc<str>>) {
        self.state().followed = server;
    }

    /// Returns the position for a call on `server` that is sent now.
    pub(crate) fn begin_append(&self, server: &str) -> Position {
        let mut state = self.state();
        state.last_append = Some(Instant::now());
        let followed = state.followed.clone().filter(|followed| **followed == *server);
        Position { newest: state.newest, followed }
    }

    /// Adds the messages that the call at `position` appended, and the entries before them. Adds
    /// nothing, and leaves all to the tail, if `before` is `None`, or if the tail has lost its
    /// connection since: another one may have found a break, or a server with other entries.
    pub(crate) fn end_append(
        &self,
        position: &Position,
        messages: impl Iterator<Item = Message>,
        results: &[RedisResult<Confirmed>],
        before: Option<Before>,
    ) {
        let mut state = self.state();
        state.last_append = Some(Instant::now());
        let is_followed = match (&state.followed, &position.followed) {
            (Some(current), Some(before)) => Arc::ptr_eq(current, before),
            _ => false,
        };
        let Some(Before { trimmed, entries }) = before.filter(|_| is_followed) else {
            state.followed = None;
            drop(state);
            self.read_due.notify_one();
            return;
        };
        state.add(trimmed, entries);
        for (message, result) in messages.zip(results) {
            if let Ok(Confirmed::Stored(id)) = result {
                state.store(*id, Entry::Message(message));
            }
        }
    }

    /// Waits until the tail should read again. Returns true if it should wait on the server for the
    /// next entry: no append is under way whose answer would bring it.
    pub(crate) async fn read_due(&self) -> bool {
        let end = Instant::now() + READ_INTERVAL;
        loop {
            let now = Instant::now();
            let quiet_at = self.state().last_append.map(|last| last + QUIET_AFTER);
            let Some(quiet_at) = quiet_at.filter(|quiet_at| now < *quiet_at) else { return true };
            if end <= now {
                return false;
            }
            tokio::select! {
                () = sleep_until(quiet_at.min(end)) => {}
                () = self.read_due.notified() => return false,
            }
        }
    }
}

impl State {
    fn add(&mut self, trimmed: EventId, entries: Vec<(EventId, Entry)>) {
        if self.newest < trimmed {
            let last_read = self.newest;
            tracing::warn!(%last_read, %trimmed, "entries were trimmed before they were read");
            self.restart_after(trimmed, GapReason::Evicted);
        }
        for (id, entry) in entries {
            self.store(id, entry);
        }
    }

    /// Stores an entry, unless it was copied before, from the other source, or is part of a gap.
    fn store(&mut self, id: EventId, entry: Entry) {
        if id <= self.newest {
            return;
        }
        self.newest = id;
        match entry {
            Entry::Message(message) => self.hub.store(message, id),
            Entry::Break { reason } => {
                tracing::warn!(%id, reason, "the log may have lost entries before this one");
                self.restart_after(id, GapReason::LogChanged);
            }
            Entry::Unreadable { reason } => {
                tracing::error!(%id, reason, "cannot decode an entry of the log");
                self.hub.skip(id);
            }
        }
    }

    fn restart_after(&mut self, id: EventId, reason: GapReason) {
        self.newest = id;
        if reason == GapReason::LogChanged {
            self.metrics.log_breaks.inc();
        }
        self.hub.begin(id, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{DedupLimits, Limits, RingLimits};

    fn copy() -> LogCopy {
        let limits = Limits {
            ring: RingLimits { events: 10, bytes: 1 << 20 },
            ring_age_ms: 60_000,
            ring_bytes_total: 1 << 20,
            topics: 10,
            dedup: DedupLimits { age_ms: 0, ids: 0, ids_total: 0 },
            subscribers: 0,
            followed_bytes: 0,
            filters: 0,
        };
        LogCopy::new(Hub::copy(limits), Metrics::new().unwrap())
    }

    fn id(sequence: u64) -> EventId {
        EventId { time_ms: 7, sequence }
    }

    fn entry(sequence: u64) -> (EventId, Entry) {
        (id(sequence), Entry::Message(Message::for_tests("orders", "x")))
    }

    /// Ends a call that appended the event with this sequence, after `entries`.
    fn end(copy: &LogCopy, position: &Position, own: u64, entries: Option<Vec<(EventId, Entry)>>) {
        let messages = [Message::for_tests("orders", "own")].into_iter();
        let before = entries.map(|entries| Before { entries, trimmed: EventId::ZERO });
        copy.end_append(position, messages, &[Ok(Confirmed::Stored(id(own)))], before);
    }

    fn events(copy: &LogCopy) -> usize {
        copy.state().hub.stats().events
    }

    #[test]
    fn answer_and_read_add_each_entry_once() {
        let (copy, server) = (copy(), Arc::<str>::from("server"));
        copy.set_followed(Some(Arc::clone(&server)));
        let position = copy.begin_append(&server);
        assert!(position.is_followed());
        // The read of the tail is faster, and has the own entry of the call.
        copy.add(EventId::ZERO, vec![entry(1), entry(2)]);
        end(&copy, &position, 2, Some(vec![entry(1)]));
        assert_eq!((copy.newest(), events(&copy)), (id(2), 2));
        // The answer is faster.
        let position = copy.begin_append(&server);
        end(&copy, &position, 4, Some(vec![entry(3)]));
        copy.add(EventId::ZERO, vec![entry(3), entry(4), entry(5)]);
        assert_eq!((copy.newest(), events(&copy)), (id(5), 5));
    }

    #[test]
    fn only_answers_of_the_followed_connection_are_added() {
        let (copy, server) = (copy(), Arc::<str>::from("server"));
        // The tail has no connection, or one to another server.
        for followed in [None, Some(Arc::from("other"))] {
            copy.set_followed(followed);
            let position = copy.begin_append(&server);
            assert!(!position.is_followed());
            end(&copy, &position, 1, Some(Vec::new()));
        }
        // The tail has connected again since the call.
        copy.set_followed(Some(Arc::clone(&server)));
        let position = copy.begin_append(&server);
        copy.set_followed(Some(Arc::from("server")));
        end(&copy, &position, 1, Some(Vec::new()));
        // The answer has only a part of what the tail has not read.
        copy.set_followed(Some(Arc::clone(&server)));
        let position = copy.begin_append(&server);
        end(&copy, &position, 1, None);
        assert!(!copy.begin_append(&server).is_followed());
        assert_eq!((copy.newest(), events(&copy)), (EventId::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn tail_waits_on_the_server_when_appends_are_rare() {
        let (copy, server) = (copy(), Arc::<str>::from("server"));
        assert!(copy.read_due().await, "nothing was ever appended");
        let begun = Instant::now();
        let appends = async {
            loop {
                copy.set_followed(Some(Arc::clone(&server)));
                end(&copy, &copy.begin_append(&server), 1, Some(Vec::new()));
                sleep_until(Instant::now() + QUIET_AFTER / 2).await;
            }
        };
        tokio::select! {
            // In this order, so that the first append is before the question.
            biased;
            () = appends => {}
            waits = copy.read_due() => assert!(!waits),
        }
        assert!(READ_INTERVAL <= begun.elapsed(), "renewals are read now and then");
        assert!(copy.read_due().await, "no append for a while");
        // The answer to a call was lost.
        let position = copy.begin_append(&server);
        end(&copy, &position, 1, None);
        let begun = Instant::now();
        assert!(!copy.read_due().await);
        assert!(begun.elapsed() < QUIET_AFTER);
    }
}
