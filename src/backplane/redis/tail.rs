//! Tail: the task that copies the log into the rings.
//!
//! The tail is the only writer of the rings. If a push also wrote to the rings of its replica,
//! event 11 could be there before event 10 of another replica.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    backplane::{
        follower::{Backoff, Progress},
        redis::{batch::LogBatch, dialer::Dialer, entry::Entry, error::TailError},
        renewal::Renewal,
    },
    hub::Hub,
    model::{event_id::EventId, gap::GapReason},
    telemetry::metrics::Metrics,
};

/// Longest time that the server waits for an entry. Short enough to notice soon that the server is
/// no longer the master, or that the connection is dead.
const BLOCK_MAX: Duration = Duration::from_secs(5);
/// Longest time for an answer beyond [`BLOCK_MAX`].
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest number of renewals that were read and not carried out yet.
const RENEWALS_MAX: usize = 10_000;

/// Reader of the log.
#[derive(Debug)]
pub(crate) struct Tail {
    dialer: Arc<Dialer>,
    hub: Hub,
    metrics: Metrics,
    progress: Arc<Progress>,
    ring_age: Duration,
    /// Newest entry that was read.
    last_entry: EventId,
    /// Newest renewal that was read.
    last_renewal: EventId,
    renewals: mpsc::Sender<Renewal>,
    /// Server that was read from last. `None` before the first connection.
    server: Option<Arc<str>>,
}

impl Tail {
    /// Creates a tail that copies the entries of the last `ring_age` into `hub`, and a channel of
    /// the renewals that it reads.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        hub: Hub,
        metrics: Metrics,
        ring_age: Duration,
    ) -> (Self, mpsc::Receiver<Renewal>) {
        let (renewals, received) = mpsc::channel(RENEWALS_MAX);
        let tail = Self {
            dialer,
            hub,
            metrics,
            progress: Arc::default(),
            ring_age,
            last_entry: EventId::ZERO,
            last_renewal: EventId::ZERO,
            renewals,
            server: None,
        };
        (tail, received)
    }

    /// Returns the progress, which is shared with other tasks.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Follows the log, and connects again after each error. Never returns.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Err(err) = self.follow(&mut backoff).await;
            self.progress.set_caught_up(false);
            self.progress.set_server(None);
            let wait = backoff.next();
            let server = self.dialer.address();
            tracing::warn!(server, error = %err, retry_in = ?wait, "not reading the log");
            tokio::time::sleep(wait).await;
        }
    }

    /// Connects and copies entries until an error occurs.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Infallible, TailError> {
        self.metrics.log_connects.with_label_values(&["tail"]).inc();
        let mut link = self.dialer.dial(BLOCK_MAX + ANSWER_MAX).await?;
        let opened = link.open(self.last_entry, self.ring_age, self.server.as_deref()).await?;
        if self.server.is_none() {
            self.restart_after(opened.after, GapReason::Evicted);
            self.last_renewal = opened.renewal;
        }
        // The stream of renewals may have been lost and have begun again with smaller ids.
        self.last_renewal = self.last_renewal.min(opened.renewal);
        self.server = Some(Arc::clone(link.server()));
        self.progress.set_server(self.server.clone());
        let server = self.dialer.address();
        tracing::info!(server, from = %self.last_entry, newest = %opened.newest, "reading the log");
        let mut block = None;
        loop {
            let reply = tokio::select! {
                reply = link.read(self.last_entry, self.last_renewal, block) => reply?,
                () = self.progress.reconnect_requested() => {
                    return Err(TailError::AppendsElsewhere);
                }
            };
            backoff.reset();
            let caught_up = self.apply(LogBatch::decode(reply)?)?;
            self.progress.set_caught_up(caught_up);
            block = caught_up.then_some(BLOCK_MAX);
            if caught_up && !self.progress.is_filled() {
                self.progress.set_filled();
                tracing::info!(newest = %self.last_entry, "the rings are filled from the log");
            }
        }
    }

    /// Copies a batch into the rings and sends its renewals. Returns true if the log has no more
    /// entries.
    fn apply(&mut self, batch: LogBatch) -> Result<bool, TailError> {
        if self.last_entry < batch.trimmed {
            let (last_read, trimmed) = (self.last_entry, batch.trimmed);
            tracing::warn!(%last_read, %trimmed, "entries were trimmed before they were read");
            self.restart_after(batch.trimmed, GapReason::Evicted);
        }
        for (id, renewal) in batch.renewals {
            self.last_renewal = id;
            // Dropped if the channel is full: a reader whose renewal is lost renews again.
            renewal.map(|renewal| self.renewals.try_send(renewal).ok());
        }
        let is_empty = batch.entries.is_empty();
        for (id, entry) in batch.entries {
            // Entries that were trimmed after they were read are part of the gap already.
            if self.last_entry < id {
                self.last_entry = id;
                self.store(id, entry);
            }
        }
        match batch.newest {
            Some(newest) if self.last_entry <= newest => {}
            _ => return Err(TailError::LogShortened),
        }
        // The newest entry may have been deleted by hand, so an empty batch also is the end.
        Ok(is_empty || batch.newest == Some(self.last_entry))
    }

    fn store(&mut self, id: EventId, entry: Entry) {
        match entry {
            Entry::Message(message) => self.hub.store(message, id),
            Entry::Break { reason } => {
                tracing::warn!(%id, reason, "the log may have lost entries before this one");
                self.restart_after(id, GapReason::LogChanged);
            }
            Entry::Unreadable { reason } => {
                tracing::error!(%id, reason, "cannot decode an entry of the log");
                self.hub.skip(id);
            }
        }
    }

    /// Continues after `id`, and records a gap before it for the readers.
    fn restart_after(&mut self, id: EventId, reason: GapReason) {
        self.last_entry = id;
        if reason == GapReason::LogChanged {
            self.metrics.log_breaks.inc();
        }
        self.hub.begin(id, reason);
    }
}
