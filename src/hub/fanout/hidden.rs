//! Hidden events: the events of a group's topics that its filter hides. Each is checked once for
//! all subscribers of the group, which then skip it without a check of their own.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::{
    hub::{
        fanout::shared_filter::SharedFilter,
        store::read::{Cursor, Position},
    },
    model::event_id::EventId,
};

/// Filter of a group, and how far its events were checked.
#[derive(Debug)]
pub(crate) struct GroupFilter {
    pub(crate) filter: Rc<SharedFilter>,
    /// Newest spans, oldest first. Subscribers that lag skip the older ones.
    spans: RefCell<VecDeque<Span>>,
    /// Position up to which events were checked. The group has notified its waiting subscribers of
    /// the events that the filter shows, so they have nothing to read up to this position.
    checked: Cell<Position>,
    /// True if the group must be notified even if its filter hides all new events.
    is_due: Cell<bool>,
}

/// Span of events that the filter hides, in which no event was lost.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Cursor,
    to: Position,
}

/// Number of spans that are kept.
const SPANS_MAX: usize = 8;

impl GroupFilter {
    /// Creates the state of a group that has no subscriber yet. `head` is the newest id.
    pub(crate) fn new(filter: Rc<SharedFilter>, head: EventId) -> Self {
        let cursor = Cursor { after: head, losses_seen: 0 };
        let checked = Cell::new(Position { cursor, complete_at: None });
        Self { filter, spans: RefCell::default(), checked, is_due: Cell::default() }
    }

    /// Returns the position up to which events were checked.
    pub(crate) fn checked(&self) -> Position {
        self.checked.get()
    }

    /// Records that the events up to `to` were checked. The caller must then notify the waiting
    /// subscribers.
    pub(crate) fn set_checked(&self, to: Position) {
        self.checked.set(to);
    }

    /// Records a read from `from` to `to` that found neither a gap nor an event that the filter
    /// shows. Ignores a read that did not begin where the group was checked last: whichever
    /// subscriber reads there first checks for all.
    pub(crate) fn record_hidden(&self, from: &Cursor, to: Position) {
        let before = self.checked().cursor;
        if from.after != before.after || before.losses_seen < from.losses_seen {
            return;
        }
        self.checked.set(to);
        let mut spans = self.spans.borrow_mut();
        match spans.back_mut().filter(|span| span.to.after() == before.after) {
            Some(span) => span.to = to,
            None if to.after() == before.after => {}
            None => {
                if spans.len() == SPANS_MAX {
                    spans.pop_front();
                }
                spans.push_back(Span { from: before, to });
            }
        }
    }

    /// Returns the end of a hidden span if `cursor` is in it: the subscriber can continue there.
    ///
    /// The subscriber must have been sent each loss that was reported before the span. The events
    /// in the span were held when they were checked, so none of them is missing, even if it has
    /// left its ring since.
    pub(crate) fn end_of_span(&self, cursor: &Cursor) -> Option<Position> {
        let is_inside = |Span { from, to }: &&Span| {
            (from.after..to.after()).contains(&cursor.after)
                && (from.losses_seen..=to.cursor.losses_seen).contains(&cursor.losses_seen)
        };
        self.spans.borrow().iter().rev().find(is_inside).map(|span| span.to)
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
