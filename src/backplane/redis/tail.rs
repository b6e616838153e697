//! Follows the log into the rings. It is their only writer: a push that also wrote into its own
//! replica's would show 11 there before 10.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Value, pipe, streams::StreamReadReply};
use tokio::sync::Notify;

use crate::{
    backplane::redis::{
        backoff::Backoff,
        entry::{self, Entry},
        link::{BadLink, Dialer, Link, event_id},
    },
    clock,
    event::EventId,
    hub::{GapReason, Hub},
    metrics::Metrics,
};

/// The longest that the server is asked to wait for an entry. Often enough to find out that it is
/// no longer the master, or that the connection is dead.
const BLOCK: Duration = Duration::from_secs(5);
/// An answer takes at most so long beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A batch is to have about so many bytes. Its first is one entry, since they can have 10 MB each.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And at most so many entries.
const BATCH_MAX: usize = 256;

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
    has_begun: bool,
    batch: usize,
}

/// How far it is, as others may know it.
#[derive(Debug)]
pub struct Progress {
    filled: AtomicBool,
    is_now_filled: Notify,
    /// When it last knew that it had read everything, Unix milliseconds; 0 while it does.
    behind_since_ms: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        let behind_since_ms = AtomicU64::new(clock::now_ms());
        Self { filled: AtomicBool::new(false), is_now_filled: Notify::new(), behind_since_ms }
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

    /// For how long there may have been entries that were not read.
    pub fn lag(&self) -> Duration {
        match self.behind_since_ms.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            since_ms => Duration::from_millis(clock::now_ms().saturating_sub(since_ms)),
        }
    }

    fn is_caught_up(&self, caught_up: bool) {
        if caught_up {
            self.behind_since_ms.store(0, Ordering::SeqCst);
        } else if self.behind_since_ms.load(Ordering::SeqCst) == 0 {
            self.behind_since_ms.store(clock::now_ms(), Ordering::SeqCst);
        }
    }
}

/// Why it has to connect anew.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Link(#[from] BadLink),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("the server is no longer the master")]
    Demoted,
}

/// What was read at once.
struct Batch {
    entries: Vec<(EventId, HashMap<String, Value>)>,
    bytes: usize,
    /// The newest entry that had been trimmed away after that.
    trimmed: EventId,
}

impl Tail {
    pub fn new(dialer: Arc<Dialer>, hub: Hub, metrics: Metrics, ring_age: Duration) -> Self {
        let progress = Arc::default();
        Self {
            dialer,
            hub,
            metrics,
            progress,
            ring_age,
            at: EventId::ZERO,
            has_begun: false,
            batch: 1,
        }
    }

    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Connects again and again, for as long as it is polled.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Err(err) = self.follow(&mut backoff).await;
            self.progress.is_caught_up(false);
            let wait = backoff.next();
            let server = self.dialer.address();
            tracing::warn!(server, error = %err, retry_in = ?wait, "not reading the log");
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Infallible, Lost> {
        self.metrics.log_connects.with_label_values(&["tail"]).inc();
        let mut link = self.dialer.dial(BLOCK + ANSWER_MAX).await?;
        let opened = link.open(self.at, self.ring_age).await?;
        if !self.has_begun {
            self.begin(opened.after, GapReason::Evicted);
            self.has_begun = true;
        }
        let server = self.dialer.address();
        tracing::info!(server, from = %self.at, newest = %opened.newest, "reading the log");
        self.batch = 1;
        loop {
            let batch = self.read(&mut link).await?;
            backoff.reset();
            let is_all = batch.entries.len() < self.batch;
            self.take(batch);
            self.progress.is_caught_up(is_all);
            if opened.newest <= self.at && !self.progress.is_filled() {
                self.progress.filled.store(true, Ordering::SeqCst);
                self.progress.is_now_filled.notify_waiters();
                tracing::info!(at = %self.at, "the rings are filled from the log");
            }
        }
    }

    /// The next entries, as soon as there are some, or none after a time.
    async fn read(&self, link: &mut Link) -> Result<Batch, Lost> {
        let (connection, log, state) = link.parts();
        let mut commands = pipe();
        commands.cmd("ROLE").cmd("XREAD").arg("COUNT").arg(self.batch);
        // Without a wait until the rings are filled: there is something, or nothing is missing.
        if self.progress.is_filled() {
            commands.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or_default());
        }
        commands.arg("STREAMS").arg(log).arg(self.at.to_string());
        // After the read: what was trimmed before it, and was not read yet, is told as missing.
        commands.cmd("HGET").arg(state).arg("trimmed");
        let (role, reply, trimmed): (Vec<Value>, Option<StreamReadReply>, Option<String>) =
            commands.query_async(connection).await?;
        if !matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") {
            return Err(Lost::Demoted);
        }
        let trimmed = trimmed.as_deref().map_or(Ok(EventId::ZERO), event_id)?;
        let mut batch = Batch { entries: Vec::new(), bytes: 0, trimmed };
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            batch.bytes += entry.map.values().map(size).sum::<usize>();
            batch.entries.push((event_id(&entry.id)?, entry.map));
        }
        Ok(batch)
    }

    fn take(&mut self, batch: Batch) {
        if self.at < batch.trimmed {
            tracing::warn!(at = %self.at, trimmed = %batch.trimmed, "the log was trimmed too soon");
            self.begin(batch.trimmed, GapReason::Evicted);
        }
        if !batch.entries.is_empty() {
            let each = (batch.bytes / batch.entries.len()).max(1);
            self.batch = (BATCH_BYTES / each).clamp(1, BATCH_MAX).min(self.batch * 4);
        }
        for (id, fields) in batch.entries {
            // Those that were trimmed after they were read are told as missing already.
            if self.at < id {
                self.at = id;
                self.store(id, entry::read(fields));
            }
        }
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
                self.begin(id, GapReason::LogChanged);
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

fn size(value: &Value) -> usize {
    if let Value::BulkString(bytes) = value { bytes.len() } else { 0 }
}
