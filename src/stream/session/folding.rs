//! Folds of a session: the newest events of each key at its start, and for a reader that cannot
//! keep up.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    First, Next, Session,
    state::{Open, Phase},
};
use crate::{hub::Read, limits::budget::Budget, model::control::Control, stream::fold::Fold};

impl Session {
    /// Records that the reader's socket did not take all bytes. A reader that then has more than a
    /// batch to read cannot keep up.
    pub(crate) fn mark_blocked(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.set_blocked(true);
        }
    }

    /// Reads on for the fold of the stream, if there is one. Returns false if it has not read
    /// everything yet.
    pub(super) fn read_fold(&mut self) -> bool {
        let Phase::Open(open) = &mut self.phase else { return true };
        let fold = open.extras.as_mut().and_then(|extras| extras.fold.as_mut());
        let Some(fold) = fold else { return true };
        if !fold.read(open.subscriber.reader()) {
            return false;
        }
        // A reader that is cut before the first event resumes right before that event.
        if let Some(First::Say(Control::Open(message))) = open.first.as_deref_mut()
            && let Some(start) = fold.start()
        {
            (message.id, open.last_sent_id) = (start, start);
        }
        true
    }

    /// Returns what the fold of the stream gives next. `None` if there is no fold, or if it has
    /// given everything: then the stream reads on after it.
    pub(super) fn give_folded(&mut self, now: Instant) -> Option<Next> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let held = &mut open.extras.as_mut()?.fold;
        let fold = held.as_mut()?;
        if let Some(gap) = fold.take_gap() {
            return Some(self.say_gap(gap, now));
        }
        if let Some(folded) = fold.take_folded() {
            self.context.metrics.folded.inc_by(folded.events);
            self.written_at = now;
            return Some(Next::Say(Control::Folded(Box::new(folded))));
        }
        let events = fold.next_events(self.format);
        if fold.is_empty() {
            open.subscriber.move_to(fold.position());
            *held = None;
        }
        let events = events?;
        self.written_at = now;
        Some(self.give(events))
    }
}

impl Open {
    /// Reads the next events, and the gap before them. If the reader cannot keep up and does not
    /// want all events, begins a fold instead, and returns `None`.
    pub(super) fn read(&mut self, budget: &Arc<Budget>) -> Option<Read> {
        let before = self.subscriber.position();
        let read = self.subscriber.read();
        if !self.subscriber.has_more() {
            self.set_blocked(false);
        }
        let has_events = |read: &Read| read.gap.is_none() && read.events.is_some();
        let Some(extras) = self.extras.as_mut().filter(|extras| extras.slow.is_blocked()) else {
            return read;
        };
        if !read.as_ref().is_some_and(has_events) {
            return read;
        }
        self.subscriber.move_to(before);
        extras.slow.set_blocked(false);
        let head = self.subscriber.hub().head();
        extras.fold = Some(Box::new(Fold::of_slow_reader(before, head, budget)));
        None
    }

    fn set_blocked(&mut self, value: bool) {
        if let Some(extras) = &mut self.extras {
            extras.slow.set_blocked(value);
        }
    }
}
