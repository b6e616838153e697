//! Follows the log into the rings. It is their only writer: a push that also wrote into its own
//! replica's would show 11 there before 10.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc};

use crate::{
    backplane::{
        Renewal,
        redis::{
            backoff::Backoff,
            batch::LogBatch,
            entry::Entry,
            link::{Dialer, LinkError},
        },
    },
    clock,
    hub::{GapReason, Hub},
    model::event::EventId,
    telemetry::metrics::Metrics,
};

/// The longest that the server is asked to wait for an entry. Often enough to find out that it is
/// no longer the master, or that the connection is dead.
const BLOCK: Duration = Duration::from_secs(5);
/// An answer takes at most so long beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Renewals that are being carried out.
const RENEWALS_MAX: usize = 10_000;
/// Follows the log.
#[derive(Debug)]
pub struct Tail {
    dialer: Arc<Dialer>,
    hub: Hub,
    metrics: Metrics,
    progress: Arc<Progress>,
    ring_age: Duration,
    /// The newest entry that was read.
    at: EventId,
    /// The newest renewal that was.
    renewal: EventId,
    renewals: mpsc::Sender<Renewal>,
    /// The server that was read from.
    server: Option<Arc<str>>,
}

/// How far it is, as others may know it.
#[derive(Debug)]
pub struct Progress {
    filled: AtomicBool,
    is_now_filled: Notify,
    /// The server that is read from, while one is.
    server: Mutex<Option<Arc<str>>>,
    /// The connection is to be made anew.
    is_elsewhere: Notify,
    /// When it last knew that it had read everything, Unix milliseconds; 0 while it does.
    behind_since_ms: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            filled: AtomicBool::new(false),
            is_now_filled: Notify::new(),
            server: Mutex::default(),
            is_elsewhere: Notify::new(),
            behind_since_ms: AtomicU64::new(clock::now_ms()),
        }
    }
}

impl Progress {
    /// Whether the rings hold what the log held when this process came.
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::SeqCst)
    }

    /// Waits until they do.
    pub async fn filled(&self) {
        let filled = self.is_now_filled.notified();
        if !self.is_filled() {
            filled.await;
        }
    }

    /// Whether pushes to a server come out here. If the log is read from another one, both are to
    /// be found anew: one of them is no longer the master, and does not know.
    pub fn agrees(&self, server: &Arc<str>) -> bool {
        let read_from = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let agrees = read_from.as_ref().is_none_or(|read_from| read_from == server);
        if !agrees {
            self.is_elsewhere.notify_one();
        }
        agrees
    }

    fn reads_from(&self, server: Option<Arc<str>>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// For how long there may have been entries that were not read.
    pub fn lag(&self) -> Duration {
        match self.behind_since_ms.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            since_ms => Duration::from_millis(clock::now_ms().saturating_sub(since_ms)),
        }
    }

    fn set_caught_up(&self, caught_up: bool) {
        if caught_up {
            self.behind_since_ms.store(0, Ordering::SeqCst);
        } else if self.behind_since_ms.load(Ordering::SeqCst) == 0 {
            self.behind_since_ms.store(clock::now_ms(), Ordering::SeqCst);
        }
    }
}

/// Why it has to connect anew.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("the server is no longer the master")]
    Demoted,
    #[error("the log is shorter than it was")]
    Shorter,
    #[error("pushes go to another server")]
    Elsewhere,
    #[error("the server does not answer as Redis does")]
    Strange,
}

impl Tail {
    /// Renewals of streams are told to whoever keeps the other end of the channel.
    pub fn new(
        dialer: Arc<Dialer>,
        hub: Hub,
        metrics: Metrics,
        ring_age: Duration,
    ) -> (Self, mpsc::Receiver<Renewal>) {
        let progress = Arc::default();
        let (renewals, received) = mpsc::channel(RENEWALS_MAX);
        let tail = Self {
            renewal: EventId::ZERO,
            renewals,
            dialer,
            hub,
            metrics,
            progress,
            ring_age,
            at: EventId::ZERO,
            server: None,
        };
        (tail, received)
    }

    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Connects again and again, for as long as it is polled.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Err(err) = self.follow(&mut backoff).await;
            self.progress.set_caught_up(false);
            self.progress.reads_from(None);
            let wait = backoff.next();
            let server = self.dialer.address();
            tracing::warn!(server, error = %err, retry_in = ?wait, "not reading the log");
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Infallible, TailError> {
        self.metrics.log_connects.with_label_values(&["tail"]).inc();
        let mut link = self.dialer.dial(BLOCK + ANSWER_MAX).await?;
        let opened = link.open(self.at, self.ring_age, self.server.as_deref()).await?;
        if self.server.is_none() {
            self.begin(opened.after, GapReason::Evicted);
            self.renewal = opened.renewal;
        }
        // Perhaps they are others than those that were read.
        self.renewal = self.renewal.min(opened.renewal);
        self.server = Some(Arc::clone(link.server()));
        self.progress.reads_from(self.server.clone());
        let server = self.dialer.address();
        tracing::info!(server, from = %self.at, newest = %opened.newest, "reading the log");
        let mut block = None;
        loop {
            let reply = tokio::select! {
                reply = link.read(self.at, self.renewal, block) => reply?,
                () = self.progress.is_elsewhere.notified() => return Err(TailError::Elsewhere),
            };
            backoff.reset();
            let is_all = self.take(LogBatch::of(reply)?)?;
            self.progress.set_caught_up(is_all);
            block = is_all.then_some(BLOCK);
            if is_all && !self.progress.is_filled() {
                self.progress.filled.store(true, Ordering::SeqCst);
                self.progress.is_now_filled.notify_waiters();
                tracing::info!(at = %self.at, "the rings are filled from the log");
            }
        }
    }

    /// Returns whether there is nothing more to read.
    fn take(&mut self, batch: LogBatch) -> Result<bool, TailError> {
        if self.at < batch.trimmed {
            tracing::warn!(at = %self.at, trimmed = %batch.trimmed, "the log was trimmed too soon");
            self.begin(batch.trimmed, GapReason::Evicted);
        }
        for (id, renewal) in batch.renewals {
            self.renewal = id;
            // Nobody waits for room: a reader whose renewal is lost renews again.
            renewal.map(|renewal| self.renewals.try_send(renewal).ok());
        }
        let was_any = !batch.entries.is_empty();
        for (id, entry) in batch.entries {
            // Those that were trimmed after they were read are told as missing already.
            if self.at < id {
                self.at = id;
                self.store(id, entry);
            }
        }
        match batch.newest {
            Some(newest) if self.at <= newest => {}
            _ => return Err(TailError::Shorter),
        }
        // The newest may have been taken out by hand.
        Ok(!was_any || batch.newest == Some(self.at))
    }

    fn store(&mut self, id: EventId, entry: Entry) {
        match entry {
            Entry::Message(message) => self.hub.store(&message, id),
            Entry::Break { reason } => {
                tracing::warn!(%id, reason, "the log may have forgotten something before this");
                self.begin(id, GapReason::LogChanged);
            }
            Entry::Unreadable { reason } => {
                tracing::error!(%id, reason, "an entry of the log cannot be read");
                self.hub.skip(id);
            }
        }
    }

    fn begin(&mut self, at: EventId, reason: GapReason) {
        self.at = at;
        if reason == GapReason::LogChanged {
            self.metrics.log_breaks.inc();
        }
        self.hub.begin(at, reason);
    }
}
