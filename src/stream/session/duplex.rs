//! Methods of a session for the driver of a connection in both directions.

use std::sync::Arc;

use super::{Phase, Session, state::First};
use crate::stream::lease::{Lease, LeaseTimer};

/// Number of keep-alives without an answer after which a reader is silent.
pub(crate) const UNANSWERED_MAX: u8 = 2;

impl Session {
    /// Records that the reader has sent something, such as the answer to a keep-alive.
    pub(crate) fn mark_received(&mut self) {
        self.keep_alives = 0;
    }

    /// Returns true if more than two keep-alives in a row had no answer: the connection is
    /// dead, or a proxy holds it open.
    pub(crate) fn is_silent(&self) -> bool {
        UNANSWERED_MAX < self.keep_alives
    }

    /// Returns true if a part of a large event was given, and the rest comes next.
    pub(crate) fn is_within_event(&self) -> bool {
        match &self.phase {
            Phase::Open(open) => matches!(open.first.as_deref(), Some(First::Large(_))),
            _ => false,
        }
    }

    /// Returns true if the last message was given.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Returns true if the stream has ended with [`Next::FellBehind`](super::Next::FellBehind).
    pub(crate) fn has_fallen_behind(&self) -> bool {
        matches!(self.phase, Phase::FellBehind)
    }

    /// Returns the lease of the stream, if it ends with a token and is open.
    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        match &self.phase {
            Phase::Open(open) => open.lease().map(LeaseTimer::lease),
            _ => None,
        }
    }
}
