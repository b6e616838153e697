//! Gaps: notices to readers that events are missing.

use crate::model::{event_id::EventId, topic::Topic};

/// Notice that events after a reader's cursor are no longer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Cause of the loss.
    pub reason: GapReason,
    /// Topics that lost events. Empty when it can be any topic that the reader follows.
    pub topics: Vec<Topic>,
    /// Cursor after which events are missing. `None` when the reader sent an id that is not an
    /// event id.
    pub after: Option<EventId>,
    /// Newest id that may be missing.
    pub upto: EventId,
}

/// Cause of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The events were removed from the rings, which are bounded.
    Evicted,
    /// The cursor is older than this history. All events that are held follow.
    Restart,
    /// The cursor is not an event id, or is newer than the newest one. Reading continues at the
    /// head.
    UnknownId,
    /// The log that this hub copies may have lost events.
    LogChanged,
    /// The newest events of each key were more than a stream may hold. The oldest were left out.
    FoldLimit,
}

impl GapReason {
    /// Returns the name in control messages and in the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Restart => "restart",
            Self::UnknownId => "unknown-id",
            Self::LogChanged => "log-changed",
            Self::FoldLimit => "fold-limit",
        }
    }
}
