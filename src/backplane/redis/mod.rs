//! Log in Redis for all replicas: a Redis stream whose entry ids are the ids of the events.
//!
//! An atomic script (`lua/append.lua`) appends messages, and its answer confirms them. Only the
//! copy of the log writes to the rings, in the order of the log. The tail and the answers to
//! appends fill it.

mod append;
mod append_queue;
mod batch;
mod dialer;
mod entry;
mod error;
mod keys;
mod link;
mod log_copy;
mod newest;
mod presence;
mod scripts;
mod shared_link;
mod tail;
mod tickets;

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use redis::RedisResult;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

pub(crate) use crate::backplane::redis::error::ConnectError;

use crate::{
    backplane::{
        follower::Progress,
        outcome::{Confirmed, PublishError, UnavailableError},
        presence::{PresenceAnswer, PresenceQuestion},
        redis::{
            append_queue::{AppendQueue, Appender},
            dialer::Dialer,
            link::Link,
            log_copy::LogCopy,
            newest::NewestId,
            shared_link::SharedLink,
            tail::Tail,
        },
        renewal::Renewal,
        tickets::KeepTicketError,
    },
    config::RedisConfig,
    hub::Hub,
    model::{event_id::EventId, message::Message},
    telemetry::metrics::Metrics,
};

/// Longest time for the confirmation of a push. Pub/Sub waits for 10 s by default.
const CONFIRM_MAX: Duration = Duration::from_secs(8);
/// Longest time for the answers about presence. Readers wait for the first answer for their topic.
const PRESENCE_MAX: Duration = Duration::from_secs(2);
/// Interval at which each replica trims the log.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// Number of intervals after which the log is also trimmed by bytes. Redis takes some milliseconds
/// for each 100,000 events to measure the size of the log.
const INTERVALS_PER_BYTE_CHECK: u64 = 5;

/// Log in Redis, and the tasks that follow and trim it.
#[derive(Debug)]
pub struct RedisLog {
    queue: AppendQueue,
    link: Arc<SharedLink>,
    progress: Arc<Progress>,
    newest: NewestId,
}

/// Connects once, so that a wrong setting is reported before anything is served. A server that
/// cannot be reached is no error here, since it may become reachable.
///
/// # Errors
/// Fails when only a change of a setting can help.
pub(crate) async fn check(config: &RedisConfig) -> Result<(), ConnectError> {
    match reach(config).await {
        Err(err) if err.is_setting() => Err(err),
        _ => Ok(()),
    }
}

/// Connects once, and checks that the server can hold the log.
///
/// # Errors
/// Fails also when the server cannot be reached now.
pub(crate) async fn reach(config: &RedisConfig) -> Result<(), ConnectError> {
    Dialer::new(config).dial(CONFIRM_MAX).await.map(drop)
}

impl RedisLog {
    /// Starts to copy the log into `hub`, which must be a copy. Adds the tasks to `tasks`; dropping
    /// them ends the log. Returns a channel of the renewals that any replica sends.
    pub fn start(
        config: &RedisConfig,
        ring_age: Duration,
        hub: Hub,
        metrics: Metrics,
        tasks: &mut JoinSet<()>,
    ) -> (Arc<Self>, mpsc::Receiver<Renewal>) {
        let dialer = Dialer::new(config);
        let copy = Arc::new(LogCopy::new(hub, metrics.clone()));
        let (tail, renewals) =
            Tail::new(Arc::clone(&dialer), Arc::clone(&copy), metrics.clone(), ring_age);
        let progress = Arc::clone(tail.progress());
        let connects = metrics.log_connects.with_label_values(&["push"]);
        let link = SharedLink::new(dialer, Arc::clone(&progress), CONFIRM_MAX, connects);
        let link = Arc::new(link);
        let (queue, appender) =
            Appender::new(Arc::clone(&link), copy, CONFIRM_MAX, metrics.log_append);
        tasks.spawn(tail.run());
        tasks.spawn(appender.run());
        tasks.spawn({
            let link = Arc::clone(&link);
            async move { link.keep_connected().await }
        });
        let newest = NewestId::default();
        let log = Arc::new(Self { queue, link, progress, newest });
        tasks.spawn(Arc::clone(&log).trim());
        (log, renewals)
    }

    /// See [`Backplane::publish`](super::Backplane::publish).
    pub async fn append(&self, message: Message) -> Result<Confirmed, PublishError> {
        self.queue.append(message).await
    }

    /// Returns the newest id that the log has assigned.
    ///
    /// # Errors
    /// Fails when Redis does not answer, or when the log was lost.
    pub async fn newest(&self) -> Result<EventId, UnavailableError> {
        let request = async {
            let mut link = self.link.get()?;
            let newest = link.newest().await;
            self.available(&link, newest).ok().flatten()
        };
        self.newest.get(request).await.ok_or(UnavailableError)
    }

    /// See [`Backplane::keep_ticket`](super::Backplane::keep_ticket).
    pub async fn keep_ticket(
        &self,
        ticket: &str,
        holder: &str,
        grant: &str,
    ) -> Result<(), KeepTicketError> {
        let mut link = self.link.get().ok_or(KeepTicketError::Unavailable(UnavailableError))?;
        let kept = link.keep_ticket(ticket, holder, grant).await;
        let kept = self.available(&link, kept).map_err(KeepTicketError::Unavailable)?;
        kept.then_some(()).ok_or(KeepTicketError::TooManyOfHolder)
    }

    /// See [`Backplane::take_ticket`](super::Backplane::take_ticket).
    pub async fn take_ticket(&self, ticket: &str) -> Result<Option<String>, UnavailableError> {
        let mut link = self.link.get().ok_or(UnavailableError)?;
        let taken = link.take_ticket(ticket).await;
        self.available(&link, taken)
    }

    /// See [`Backplane::renew`](super::Backplane::renew).
    pub async fn renew(&self, renewal: &Renewal) -> Result<(), UnavailableError> {
        let mut link = self.link.get().ok_or(UnavailableError)?;
        let renewed = link.renew(renewal).await;
        self.available(&link, renewed)
    }

    /// See [`Backplane::ask_presence`](super::Backplane::ask_presence).
    pub async fn ask_presence(
        &self,
        replica: &str,
        questions: &[PresenceQuestion],
    ) -> Result<Vec<PresenceAnswer>, UnavailableError> {
        let link = self.link.get().ok_or(UnavailableError)?;
        let answers = questions.iter().map(|question| {
            let mut link = link.clone();
            async move { link.ask_presence(replica, question).await }
        });
        let answers = timeout(PRESENCE_MAX, try_join_all(answers)).await;
        let answers = answers.map_err(|_| UnavailableError)?;
        self.available(&link, answers)
    }

    /// See [`Backplane::leave_presence`](super::Backplane::leave_presence).
    pub async fn leave_presence(&self, replica: &str) -> Result<(), UnavailableError> {
        let mut link = self.link.get().ok_or(UnavailableError)?;
        let left = timeout(PRESENCE_MAX, link.leave_presence(replica)).await;
        self.available(&link, left.map_err(|_| UnavailableError)?)
    }

    /// Reports the error of a command on `link` and converts it.
    fn available<T>(&self, link: &Link, result: RedisResult<T>) -> Result<T, UnavailableError> {
        result.map_err(|err| {
            self.link.report_error(link, &err);
            UnavailableError
        })
    }

    /// See [`Backplane::is_filled`](super::Backplane::is_filled).
    pub fn is_filled(&self) -> bool {
        self.progress.is_filled()
    }

    /// See [`Backplane::filled`](super::Backplane::filled).
    pub async fn filled(&self) {
        self.progress.filled().await;
    }

    /// See [`Backplane::lag`](super::Backplane::lag).
    pub fn lag(&self) -> Duration {
        self.progress.lag()
    }

    /// Trims the log forever. Trimming is separate from appends, since Redis refuses appends at
    /// `maxmemory`, and trimming makes room.
    async fn trim(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TRIM_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            let Some(mut link) = self.link.get_followed() else { continue };
            let check_bytes = tick % INTERVALS_PER_BYTE_CHECK == 0;
            loop {
                match link.trim(check_bytes).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(err) => {
                        self.link.report_error(&link, &err);
                        break;
                    }
                }
            }
        }
    }
}
