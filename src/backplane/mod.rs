//! Where a message is stored, and by that, what an ack means.

pub mod redis;

use std::{sync::Arc, time::Duration};

use crate::{
    backplane::redis::Redis,
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
    /// One log for all replicas, of which the rings of this process are a copy.
    Redis(Arc<Redis>),
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
    /// Perhaps it was stored and only the answer was lost: then the next push is a duplicate.
    #[error("the log did not confirm the message (--backplane)")]
    Log,
}

/// The log cannot be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be asked")]
pub struct Unavailable;

impl Backplane {
    /// Stores a message. Only when this returns `Ok` may it be acked.
    ///
    /// # Errors
    /// When the log did not confirm.
    pub async fn publish(&self, message: &Message) -> Result<Confirmed, Unconfirmed> {
        match self {
            Self::Local(hub) => match hub.publish(message, clock::now_ms()) {
                Published::Stored(id) => Ok(Confirmed::Stored(id)),
                Published::Duplicate => Ok(Confirmed::Duplicate),
                Published::Closed => Err(Unconfirmed::Draining),
            },
            Self::Redis(redis) => redis.append(message).await,
        }
    }

    /// Whether the rings hold what the log holds. Once they did, they are good to be read from even
    /// while the log is away.
    pub fn is_filled(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(redis) => redis.is_filled(),
        }
    }

    /// Waits until they do.
    pub async fn filled(&self) {
        if let Self::Redis(redis) = self {
            redis.filled().await;
        }
    }

    /// For how long there may have been events in the log that the rings do not have.
    pub fn lag(&self) -> Duration {
        match self {
            Self::Local(_) => Duration::ZERO,
            Self::Redis(redis) => redis.lag(),
        }
    }

    /// Whether the log has handed out this id, or one after it.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub async fn has_reached(&self, id: EventId) -> Result<bool, Unavailable> {
        match self {
            Self::Local(hub) => Ok(id <= hub.head()),
            Self::Redis(redis) => redis.newest().await.map(|newest| id <= newest),
        }
    }
}
