//! State of a session.

use std::rc::Rc;

use tokio::time::Instant;

use crate::{
    hub::{Position, ReadEvents, Subscriber},
    model::{control::Control, event_id::EventId},
    presence::participation::Participation,
    stream::{
        fold::{Fold, Slow},
        large::LargeEvent,
        lease::LeaseTimer,
        pending::{LogAnswer, PendingStream},
    },
};

/// Phase of a session.
#[derive(Debug)]
pub(super) enum Phase {
    /// The stream waits for the log, since this replica has to read more of it, or has to ask it.
    WaitingForLog(Box<PendingStream>, Rc<LogAnswer>),
    Open(Open),
    Finished,
    /// The stream has ended within a large event, or before one: see
    /// [`Next::FellBehind`](super::Next::FellBehind).
    FellBehind,
}

/// State of a session that has its subscriber.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) subscriber: Subscriber,
    /// Part that is sent before anything else is read.
    pub(super) first: Option<Box<First>>,
    /// Id of the newest event or checkpoint that was sent to the reader.
    pub(super) last_sent_id: EventId,
    /// Number of events that were sent, modulo 2^32. While the stream is a member of a broadcast:
    /// the number when it joined, minus the [`MemberPosition::events`] of that time.
    pub(super) events: u32,
    /// Head of the hub when the stream was opened: later events are live.
    pub(super) opened_at_head: EventId,
    /// True after a gap, until an id beyond it was sent.
    pub(super) checkpoint_due: bool,
    /// True if a gap was sent since the stream was last a member of a broadcast.
    pub(super) gap_sent: bool,
    pub(super) is_ending: bool,
    /// Parts that many streams do not have. `None` if the stream has none of them.
    pub(super) extras: Option<Box<Extras>>,
}

/// Parts that many streams do not have. They take one word of a stream without them.
#[derive(Debug)]
pub(super) struct Extras {
    pub(super) slow: Slow,
    /// Fold, whose events are sent before anything else is read. The subscriber is before it.
    pub(super) fold: Option<Box<Fold>>,
    pub(super) lease: Option<LeaseTimer>,
    pub(super) presence: Option<Box<Participation>>,
}

impl Open {
    /// Returns true if nothing is left to send before the next read.
    pub(super) fn is_reading(&self) -> bool {
        self.first.is_none() && !self.has_fold() && !self.is_ending
    }

    /// Returns true if the events of a fold are sent before anything else is read.
    pub(super) fn has_fold(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.fold.is_some())
    }

    /// Returns the lease. `None` if the stream does not end with a token.
    pub(super) fn lease(&self) -> Option<&LeaseTimer> {
        self.extras.as_ref()?.lease.as_ref()
    }

    /// Returns the participation of the stream in its topics. `None` without `presence=on`.
    pub(super) fn presence(&self) -> Option<&Participation> {
        self.extras.as_ref()?.presence.as_deref()
    }
}

impl Extras {
    /// Returns the parts, if there are any.
    pub(super) fn new(
        slow: Slow,
        fold: Option<Fold>,
        lease: Option<LeaseTimer>,
        presence: Option<Box<Participation>>,
    ) -> Option<Box<Self>> {
        let is_needed =
            slow != Slow::Gap || fold.is_some() || lease.is_some() || presence.is_some();
        is_needed.then(|| Box::new(Self { slow, fold: fold.map(Box::new), lease, presence }))
    }
}

/// Part that is sent before anything else is read.
#[derive(Debug)]
pub(super) enum First {
    Say(Control),
    /// Events that were read together with a gap, and are sent after it.
    Events(ReadEvents),
    Large(LargeEvent),
    /// End of the stream, since there is no memory to encode a large event.
    FallBehind,
}

/// Position of a member of a broadcast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberPosition {
    pub(crate) position: Position,
    /// Id of the newest event that the broadcast wrote to its members, or [`EventId::ZERO`].
    pub(crate) last_sent_id: EventId,
    /// Number of events that the broadcast has written to each member since it began, modulo 2^32.
    pub(crate) events: u32,
    /// Time of that write.
    pub(crate) written_at: Instant,
}
