//! Outcomes of operations on the log: confirmations and errors.

use crate::model::event_id::EventId;

/// Length of the longest message id that the log remembers, in bytes: that of a client's subject
/// and its key. Ids of Pub/Sub have some twenty digits. Longer ids would take memory that no limit
/// counts.
pub const MESSAGE_ID_MAX_BYTES: usize = 1_024;

/// Confirmation that the log has a message. The message may be acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The message was stored as the event with this id.
    Stored(EventId),
    /// A message with the same message id was stored before, within the deduplication window, as
    /// the event with this id.
    Duplicate(EventId),
}

/// Error for a message that the log did not confirm. The message must not be acked, so that Pub/Sub
/// pushes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The process is shutting down. Its rings end with the process, so a message that is stored in
    /// them now would be missed by readers elsewhere.
    #[error("this gateway is shutting down")]
    Draining,
    /// The confirmation did not arrive. If the message was stored and only the answer was lost, the
    /// next push is a duplicate.
    #[error("the log did not confirm the message (--backplane)")]
    Unconfirmed,
}

/// Error for a question that the log cannot answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log is not available (--backplane)")]
pub struct UnavailableError;
