//! One log for all replicas: a Redis stream whose own ids are the events' ids.
//!
//! A push is one atomic script (`lua/append.lua`), and its answer is the ack. The rings are filled
//! only by the tail, from the log, in the log's order.

mod backoff;
mod batch;
mod entry;
mod link;
mod tail;
mod tickets;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::backplane::redis::backoff::Backoff;
pub use crate::backplane::redis::link::LinkError;
use crate::backplane::redis::link::{Dialer, Link};
use crate::backplane::redis::tail::{Progress, Tail};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::JoinSet,
};

use crate::{
    backplane::{Confirmed, KeepTicketError, PublishError, Renewal, UnavailableError},
    config::Redis as Options,
    hub::Hub,
    model::{event::EventId, message::Message},
    telemetry::{metrics::Metrics, throttle::LogThrottle},
};

/// How long Redis may take to confirm a push. Pub/Sub waits for 10 s by default.
const CONFIRM_MAX: Duration = Duration::from_secs(8);
/// How often the log is trimmed, by each replica.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// A look at its bytes, which takes Redis some milliseconds for each 100,000 events, is made in
/// every so many of these.
const LOOK_AT_BYTES_EVERY: u64 = 5;

/// The log in Redis.
#[derive(Debug)]
pub struct Redis {
    hub: Hub,
    dialer: Arc<Dialer>,
    metrics: Metrics,
    /// None while there is no connection.
    link: RwLock<Option<Link>>,
    /// The connection is to be made anew.
    link_lost: Notify,
    progress: Arc<Progress>,
    newest: Newest,
    failures: LogThrottle,
}

/// The answer to the question for the newest id, for all who asked before it was put.
#[derive(Debug, Default)]
struct Newest {
    asked: AtomicU64,
    last: Mutex<(u64, Option<EventId>)>,
}

/// Whether the server could be used at all: what is wrong with its settings is to be told before
/// anything is served. One that cannot be reached may come back.
///
/// # Errors
/// When only someone who changes a setting can help.
pub async fn check(options: &Options) -> Result<(), LinkError> {
    match Dialer::new(options).dial(CONFIRM_MAX).await {
        Err(err) if err.is_setting() => Err(err),
        _ => Ok(()),
    }
}

impl Redis {
    /// Begins to follow the log into `hub`, which must be a copy. It ends with the tasks that are
    /// added to `tasks`. What comes out are the renewals of streams on any replica.
    pub fn start(
        options: &Options,
        ring_age: Duration,
        hub: Hub,
        metrics: Metrics,
        tasks: &mut JoinSet<()>,
    ) -> (Arc<Self>, mpsc::Receiver<Renewal>) {
        let dialer = Dialer::new(options);
        let (tail, renewals) =
            Tail::new(Arc::clone(&dialer), hub.clone(), metrics.clone(), ring_age);
        let redis = Arc::new(Self {
            hub,
            dialer,
            metrics,
            link: RwLock::default(),
            link_lost: Notify::new(),
            progress: Arc::clone(tail.progress()),
            newest: Newest::default(),
            failures: LogThrottle::default(),
        });
        tasks.spawn(tail.run());
        tasks.spawn(Arc::clone(&redis).keep_link());
        tasks.spawn(Arc::clone(&redis).trim());
        (redis, renewals)
    }

    /// See [`Backplane::publish`](super::Backplane::publish).
    pub async fn append(&self, message: &Message) -> Result<Confirmed, PublishError> {
        let mut link = self.link().ok_or(PublishError::Log)?;
        // What is confirmed by a server that nobody reads from would be seen by nobody.
        if !self.progress.agrees(link.server()) {
            self.give_up(&link);
            return Err(PublishError::Log);
        }
        let start = Instant::now();
        let claim = message.message_id.as_deref().map(|id| (message.topic.as_str(), id));
        let seen = self.hub.head();
        let appended = link.append(seen, claim, |command| entry::write(command, message)).await;
        self.metrics.log_append.observe(start.elapsed().as_secs_f64());
        match appended {
            Ok((_, true)) => Ok(Confirmed::Duplicate),
            Ok((id, false)) => Ok(Confirmed::Stored(id)),
            Err(err) => {
                self.failed(&link, &err);
                Err(PublishError::Log)
            }
        }
    }

    /// The newest id that the log has handed out.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn newest(&self) -> Result<EventId, UnavailableError> {
        let came = self.newest.asked.load(Ordering::SeqCst);
        let mut last = self.newest.last.lock().await;
        // An answer to a question that was put before this one came may be too old for it.
        if last.0 <= came {
            let number = self.newest.asked.fetch_add(1, Ordering::SeqCst) + 1;
            // Noted only with its answer: whoever asks can go away while it is awaited.
            let answer = self.ask_newest().await;
            *last = (number, answer);
        }
        last.1.ok_or(UnavailableError)
    }

    async fn ask_newest(&self) -> Option<EventId> {
        let mut link = self.link()?;
        match link.newest().await {
            Ok(newest) => newest,
            Err(err) => {
                self.failed(&link, &err);
                None
            }
        }
    }

    /// See [`Backplane::keep_ticket`](super::Backplane::keep_ticket).
    pub async fn keep_ticket(
        &self,
        ticket: &str,
        holder: &str,
        meaning: &str,
    ) -> Result<(), KeepTicketError> {
        let mut link = self.link().ok_or(KeepTicketError::Unavailable(UnavailableError))?;
        let kept = link.keep(ticket, holder, meaning).await;
        let kept = self.or_unavailable(&link, kept).map_err(KeepTicketError::Unavailable)?;
        kept.then_some(()).ok_or(KeepTicketError::TooManyOfHolder)
    }

    /// See [`Backplane::take_ticket`](super::Backplane::take_ticket).
    pub async fn take_ticket(&self, ticket: &str) -> Result<Option<String>, UnavailableError> {
        let mut link = self.link().ok_or(UnavailableError)?;
        let taken = link.take(ticket).await;
        self.or_unavailable(&link, taken)
    }

    /// See [`Backplane::renew`](super::Backplane::renew).
    pub async fn renew(&self, renewal: &Renewal) -> Result<(), UnavailableError> {
        let mut link = self.link().ok_or(UnavailableError)?;
        let renewed = link.renew(renewal).await;
        self.or_unavailable(&link, renewed)
    }

    fn or_unavailable<T>(
        &self,
        link: &Link,
        result: RedisResult<T>,
    ) -> Result<T, UnavailableError> {
        result.map_err(|err| {
            self.failed(link, &err);
            UnavailableError
        })
    }

    /// Whether the rings hold what the log held when this process came.
    pub fn is_filled(&self) -> bool {
        self.progress.is_filled()
    }

    /// Waits until they do.
    pub async fn filled(&self) {
        self.progress.filled().await;
    }

    /// For how long there may have been entries that this replica has not read.
    pub fn lag(&self) -> Duration {
        self.progress.lag()
    }

    fn link(&self) -> Option<Link> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives a connection up, unless it is the error of one command alone.
    fn failed(&self, link: &Link, err: &RedisError) {
        // Before Redis 7 what a script met stands within the text of another error.
        let is_no_master = matches!(
            err.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        ) || err.to_string().contains("READONLY");
        let is_of_server = matches!(err.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if let Some(more) = self.failures.log(Instant::now()) {
            let server = self.dialer.address();
            tracing::warn!(server, error = %err, more, "Redis did not do what it was asked");
        }
        if is_no_master || !is_of_server {
            self.give_up(link);
        }
    }

    fn give_up(&self, link: &Link) {
        let mut current = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.is(link)) {
            *current = None;
            self.link_lost.notify_one();
        }
    }

    /// Connects again whenever the connection is lost.
    async fn keep_link(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            self.metrics.log_connects.with_label_values(&["push"]).inc();
            match self.dialer.dial(CONFIRM_MAX).await {
                Ok(link) => {
                    *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
                    let connected = Instant::now();
                    self.link_lost.notified().await;
                    // One that breaks as soon as it is used must not be made anew at once.
                    if CONFIRM_MAX < connected.elapsed() {
                        backoff.reset();
                    }
                }
                Err(err) => {
                    let server = self.dialer.address();
                    tracing::warn!(server, error = %err, "pushes cannot reach the log");
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// A command of its own and not a part of appends: at `maxmemory` they are refused, and this is
    /// what makes room.
    async fn trim(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TRIM_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            let Some(mut link) = self.link() else { continue };
            if !self.progress.agrees(link.server()) {
                self.give_up(&link);
                continue;
            }
            let look_at_bytes = tick % LOOK_AT_BYTES_EVERY == 0;
            loop {
                match link.trim(look_at_bytes).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(err) => {
                        self.failed(&link, &err);
                        break;
                    }
                }
            }
        }
    }
}
