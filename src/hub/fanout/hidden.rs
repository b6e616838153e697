//! Hidden events: the events of a group's topics that its filter hides. Each is checked once for
//! all subscribers of the group, which then skip it without a check of their own.

use std::cell::Cell;

use crate::{
    hub::store::read::{Cursor, Position},
    model::{event_id::EventId, filter::Filter},
};

/// Filter of a group, and how far its events were checked.
#[derive(Debug)]
pub(crate) struct GroupFilter {
    pub(crate) filter: Filter,
    span: Cell<Span>,
    /// Position up to which events were checked, and waiting subscribers notified of those that the
    /// filter shows. A subscriber that waits has nothing to read up to here.
    checked: Cell<Position>,
    /// True if the group must be notified even if its filter hides all new events.
    is_due: Cell<bool>,
}

/// Newest span of events that the filter hides, in which no event was lost.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Cursor,
    to: Position,
}

impl GroupFilter {
    /// Creates the state of a group that has no subscriber yet. `head` is the newest id.
    pub(crate) fn new(filter: Filter, head: EventId) -> Self {
        let from = Cursor { after: head, losses_seen: 0 };
        let checked = Position { cursor: from, complete_at: None };
        let span = Span { from, to: checked };
        Self { filter, span: Cell::new(span), checked: Cell::new(checked), is_due: Cell::default() }
    }

    /// Returns the position up to which events were checked.
    pub(crate) fn checked(&self) -> Position {
        self.checked.get()
    }

    /// Records a read from [`Self::checked`] to `to`, which found a gap or events if `has_news`.
    pub(crate) fn record(&self, to: Position, has_news: bool) {
        let (mut span, before) = (self.span.get(), self.checked.replace(to));
        if span.to.after() != before.after() {
            span = Span { from: before.cursor, to: before };
        }
        // Until the next read, the span before the new events is kept: subscribers that skip it
        // share the read of the new events.
        span.to = if has_news { before } else { to };
        self.span.set(span);
    }

    /// Returns the end of the hidden span if `cursor` is in it: the subscriber can continue there.
    ///
    /// The subscriber must have been sent each loss that was reported before the span. The events
    /// in the span were held when they were checked, so none of them is missing, even if it has
    /// left its ring since.
    pub(crate) fn end_of_span(&self, cursor: &Cursor) -> Option<Position> {
        let Span { from, to } = self.span.get();
        let is_inside = (from.after..to.after()).contains(&cursor.after)
            && (from.losses_seen..=to.cursor.losses_seen).contains(&cursor.losses_seen);
        is_inside.then_some(to)
    }

    /// Makes the next notification reach the subscribers even if the filter hides all new events.
    pub(crate) fn set_due(&self) {
        self.is_due.set(true);
    }

    /// Returns true if [`Self::set_due`] was called since the last call.
    pub(crate) fn take_due(&self) -> bool {
        self.is_due.take()
    }
}
