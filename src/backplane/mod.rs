//! Backplane: the log in which a message must be stored before it is acked.

pub(crate) mod follower;
mod outcome;
mod presence;
pub(crate) mod redis;
mod renewal;
mod tickets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::backplane::{
    outcome::{Confirmed, MESSAGE_ID_MAX_BYTES, PublishError, UnavailableError},
    presence::{PresenceAnswer, PresenceQuestion, PresenceWrite, REPLICA_EXPIRY, StoredReport},
    renewal::Renewal,
    tickets::{KeepTicketError, TICKET_MAX, TICKETS_PER_HOLDER_MAX, Tickets},
};

use crate::{
    backplane::redis::RedisLog,
    clock,
    hub::{Hub, Published},
    model::{event_id::EventId, message::Message},
};

/// Log of events. A clone shares it.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// The rings of this process are the log. For one replica only, since each process has its own
    /// rings.
    Local(Hub, Arc<Tickets>),
    /// Log in Redis, shared by all replicas. The rings of each process are a copy of it.
    Redis(Arc<RedisLog>),
}

impl Backplane {
    /// Stores a message. The message may be acked only if this succeeds.
    ///
    /// # Errors
    /// Fails when the log does not confirm the message.
    pub async fn publish(&self, message: Message) -> Result<Confirmed, PublishError> {
        match self {
            Self::Local(hub, _) => match hub.publish(message, clock::now_ms()) {
                Published::Stored(id) => Ok(Confirmed::Stored(id)),
                Published::Duplicate(id) => Ok(Confirmed::Duplicate(id)),
                Published::Closed => Err(PublishError::Draining),
            },
            // Boxed, so that the future of every push does not have the size of this one.
            Self::Redis(redis) => Box::pin(redis.append(message)).await,
        }
    }

    /// Returns true once the rings hold what the log held when this process started. From then on
    /// readers are served from the rings, even while Redis is not reachable.
    pub fn is_filled(&self) -> bool {
        match self {
            Self::Local(..) => true,
            Self::Redis(redis) => redis.is_filled(),
        }
    }

    /// Waits until [`Self::is_filled`].
    pub async fn filled(&self) {
        if let Self::Redis(redis) = self {
            redis.filled().await;
        }
    }

    /// Returns the time for which the log may have had events that the rings do not have.
    pub fn lag(&self) -> Duration {
        match self {
            Self::Local(..) => Duration::ZERO,
            Self::Redis(redis) => redis.lag(),
        }
    }

    /// Returns true if the log has assigned `id` or a greater id.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub async fn has_reached(&self, id: EventId) -> Result<bool, UnavailableError> {
        match self {
            Self::Local(hub, _) => Ok(id <= hub.head()),
            Self::Redis(redis) => redis.newest().await.map(|newest| id <= newest),
        }
    }

    /// Removes tickets that expired unused. Called about once a second.
    pub fn sweep(&self, now: Instant) {
        if let Self::Local(_, tickets) = self {
            tickets.sweep(now);
        }
    }

    /// Stores the grant of a ticket for [`TICKET_MAX`], for all replicas. `holder` is the subject,
    /// or the token without one, that the ticket was issued to.
    ///
    /// # Errors
    /// Fails when there are too many unused tickets, or when Redis does not confirm.
    pub async fn keep_ticket(
        &self,
        ticket: &str,
        holder: &str,
        grant: String,
    ) -> Result<(), KeepTicketError> {
        match self {
            Self::Local(_, tickets) => tickets.insert(ticket, holder, grant, Instant::now()),
            Self::Redis(redis) => redis.keep_ticket(ticket, holder, &grant).await,
        }
    }

    /// Removes a ticket and returns its grant, so that a ticket can be used once, on one replica.
    /// `None` for a ticket that is unknown, used or expired.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub async fn take_ticket(&self, ticket: &str) -> Result<Option<String>, UnavailableError> {
        match self {
            Self::Local(_, tickets) => Ok(tickets.take(ticket, Instant::now())),
            Self::Redis(redis) => redis.take_ticket(ticket).await,
        }
    }

    /// Returns true if other replicas can have streams in the same topics.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Writes the reports of the replica `replica` for some topics, and returns the reports of the
    /// others, in the order of the questions. An empty name writes nothing. Without other replicas,
    /// returns no answers.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub async fn ask_presence(
        &self,
        replica: &str,
        questions: &[PresenceQuestion],
    ) -> Result<Vec<PresenceAnswer>, UnavailableError> {
        match self {
            Self::Local(..) => Ok(Vec::new()),
            Self::Redis(redis) => redis.ask_presence(replica, questions).await,
        }
    }

    /// Removes the reports of a replica at once, and not only when they expire.
    ///
    /// # Errors
    /// Fails when Redis does not confirm.
    pub async fn leave_presence(&self, replica: &str) -> Result<(), UnavailableError> {
        match self {
            Self::Local(..) => Ok(()),
            Self::Redis(redis) => redis.leave_presence(replica).await,
        }
    }

    /// Sends a renewal to the other replicas. Does nothing when there is one replica.
    ///
    /// # Errors
    /// Fails when Redis does not confirm.
    pub async fn renew(&self, renewal: &Renewal) -> Result<(), UnavailableError> {
        match self {
            Self::Local(..) => Ok(()),
            Self::Redis(redis) => redis.renew(renewal).await,
        }
    }
}
