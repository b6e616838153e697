//! Gaps: what a reader is told is missing.

use crate::model::{event_id::EventId, topic::Topic};

/// Notice that events after a reader's cursor are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Cause of the loss.
    pub reason: GapReason,
    /// Topics that lost something. Empty when it can be any topic that the reader follows.
    pub topics: Vec<Topic>,
    /// Cursor after which something is missing. `None` when the reader's id was not an id.
    pub after: Option<EventId>,
    /// Last id that may be missing: nothing is missing after it.
    pub upto: EventId,
}

/// Cause of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The rings are bounded and let go of the events.
    Evicted,
    /// The cursor is from before this history began. All that is held follows.
    Restart,
    /// The cursor is not an id, or is beyond the newest one. Reading continues at the head.
    UnknownId,
    /// The log that this hub copies may have forgotten something.
    LogChanged,
}

impl GapReason {
    /// Returns the name in control messages and in the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Restart => "restart",
            Self::UnknownId => "unknown-id",
            Self::LogChanged => "log-changed",
        }
    }
}
