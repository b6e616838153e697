//! Where a message is stored, and by that, what an ack means.

use crate::{
    clock,
    event::EventId,
    hub::{Hub, Published},
    message::Message,
};

/// The log that a push must reach before it is acked. A closed set: one variant for each.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// The rings of this process. One replica only: another one has other rings.
    Local(Hub),
}

/// The log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// As an event with this id.
    Stored(EventId),
    /// Its message id was there before, within the window.
    Duplicate,
}

/// The log did not confirm. Pub/Sub keeps the message and pushes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// What is stored in these rings now would go with the process, and its readers with it.
    #[error("this gateway is shutting down")]
    Draining,
}

impl Backplane {
    /// Stores a message. Only when this returns `Ok` may it be acked.
    ///
    /// # Errors
    /// When the log did not confirm.
    #[expect(clippy::unused_async, reason = "a log on another machine is awaited here")]
    pub async fn publish(&self, message: &Message) -> Result<Confirmed, Unconfirmed> {
        match self {
            Self::Local(hub) => match hub.publish(message, clock::now_ms()) {
                Published::Stored(id) => Ok(Confirmed::Stored(id)),
                Published::Duplicate => Ok(Confirmed::Duplicate),
                Published::Closed => Err(Unconfirmed::Draining),
            },
        }
    }
}
