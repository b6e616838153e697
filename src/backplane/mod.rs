//! Where a message is stored, and by that, what an ack means.

pub mod redis;
mod tickets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::backplane::tickets::{KeepTicketError, TICKET_MAX, TICKETS_PER_HOLDER_MAX, Tickets};

use crate::{
    backplane::redis::Redis,
    clock,
    hub::{Hub, Published},
    model::{event::EventId, message::Message},
};

/// The log that a push must reach before it is acked. A closed set: one variant for each.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// The rings of this process. One replica only: another one has other rings.
    Local(Hub, Arc<Tickets>),
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
pub enum PublishError {
    /// What is stored in these rings now would go with the process, and its readers with it.
    #[error("this gateway is shutting down")]
    Draining,
    /// Perhaps it was stored and only the answer was lost: then the next push is a duplicate.
    #[error("the log did not confirm the message (--backplane)")]
    Log,
}

/// A stream is to go on for as long as a grant lasts, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub stream: String,
    /// As the outlet writes it.
    pub grant: String,
}

/// The log cannot be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be asked")]
pub struct UnavailableError;

impl Backplane {
    /// Stores a message. Only when this returns `Ok` may it be acked.
    ///
    /// # Errors
    /// When the log did not confirm.
    pub async fn publish(&self, message: &Message) -> Result<Confirmed, PublishError> {
        match self {
            Self::Local(hub, _) => match hub.publish(message, clock::now_ms()) {
                Published::Stored(id) => Ok(Confirmed::Stored(id)),
                Published::Duplicate => Ok(Confirmed::Duplicate),
                Published::Closed => Err(PublishError::Draining),
            },
            // In a box of its own, or every push would have its room.
            Self::Redis(redis) => Box::pin(redis.append(message)).await,
        }
    }

    /// Whether the rings hold what the log holds. Once they did, they are good to be read from even
    /// while the log is away.
    pub fn is_filled(&self) -> bool {
        match self {
            Self::Local(..) => true,
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
            Self::Local(..) => Duration::ZERO,
            Self::Redis(redis) => redis.lag(),
        }
    }

    /// Whether the log has handed out this id, or one after it.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub async fn has_reached(&self, id: EventId) -> Result<bool, UnavailableError> {
        match self {
            Self::Local(hub, _) => Ok(id <= hub.head()),
            Self::Redis(redis) => redis.newest().await.map(|newest| id <= newest),
        }
    }

    /// Forgets tickets that nobody used. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        if let Self::Local(_, tickets) = self {
            tickets.sweep(now);
        }
    }

    /// Keeps what a ticket stands for, on all replicas. `holder` is who got it.
    ///
    /// # Errors
    /// See [`KeepTicketError`].
    pub async fn keep_ticket(
        &self,
        ticket: &str,
        holder: &str,
        meaning: String,
    ) -> Result<(), KeepTicketError> {
        match self {
            Self::Local(_, tickets) => tickets.keep(ticket, holder, meaning, Instant::now()),
            Self::Redis(redis) => redis.keep_ticket(ticket, holder, &meaning).await,
        }
    }

    /// What a ticket stands for, once, on one replica.
    ///
    /// # Errors
    /// When it cannot be looked up.
    pub async fn take_ticket(&self, ticket: &str) -> Result<Option<String>, UnavailableError> {
        match self {
            Self::Local(_, tickets) => Ok(tickets.take(ticket, Instant::now())),
            Self::Redis(redis) => redis.take_ticket(ticket).await,
        }
    }

    /// Tells the other replicas of a renewal.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn renew(&self, renewal: &Renewal) -> Result<(), UnavailableError> {
        match self {
            Self::Local(..) => Ok(()),
            Self::Redis(redis) => redis.renew(renewal).await,
        }
    }
}
