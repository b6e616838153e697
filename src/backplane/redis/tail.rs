//! Tail: the task that reads the log and copies it into the rings.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    backplane::{
        follower::{Backoff, Progress},
        redis::{batch::LogBatch, dialer::Dialer, error::TailError, log_copy::LogCopy},
        renewal::Renewal,
    },
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
    copy: Arc<LogCopy>,
    metrics: Metrics,
    progress: Arc<Progress>,
    ring_age: Duration,
    /// Newest renewal that was read.
    last_renewal: EventId,
    renewals: mpsc::Sender<Renewal>,
    /// Server that was read from last. `None` before the first connection.
    server: Option<Arc<str>>,
}

impl Tail {
    /// Creates a tail that adds the entries of the last `ring_age` to `copy`, and a channel of the
    /// renewals that it reads.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        copy: Arc<LogCopy>,
        metrics: Metrics,
        ring_age: Duration,
    ) -> (Self, mpsc::Receiver<Renewal>) {
        let (renewals, received) = mpsc::channel(RENEWALS_MAX);
        let tail = Self {
            dialer,
            copy,
            metrics,
            progress: Arc::default(),
            ring_age,
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
            self.copy.set_followed(None);
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
        let last_entry = self.copy.newest();
        let opened = link.open(last_entry, self.ring_age, self.server.as_deref()).await?;
        if self.server.is_none() {
            self.copy.restart_after(opened.after, GapReason::Evicted);
            self.last_renewal = opened.renewal;
        }
        // The stream of renewals may have been lost and have begun again with smaller ids.
        self.last_renewal = self.last_renewal.min(opened.renewal);
        self.server = Some(Arc::clone(link.server()));
        self.progress.set_server(self.server.clone());
        let (server, from) = (self.dialer.address(), self.copy.newest());
        tracing::info!(server, %from, newest = %opened.newest, "reading the log");
        let mut block = None;
        loop {
            let after = self.copy.newest();
            let reply = tokio::select! {
                reply = link.read(after, self.last_renewal, block) => reply?,
                () = self.progress.reconnect_requested() => {
                    return Err(TailError::AppendsElsewhere);
                }
            };
            backoff.reset();
            let caught_up = self.apply(after, LogBatch::decode(reply)?)?;
            self.copy.set_followed(self.server.clone().filter(|_| caught_up));
            self.progress.set_caught_up(caught_up);
            if caught_up && !self.progress.is_filled() {
                self.progress.set_filled();
                let newest = self.copy.newest();
                tracing::info!(%newest, "the rings are filled from the log");
            }
            block = (caught_up && self.copy.read_due().await).then_some(BLOCK_MAX);
        }
    }

    /// Adds a batch, which was read after `after`, to the copy, and sends its renewals. Returns
    /// true if the log had no more entries.
    fn apply(&mut self, after: EventId, batch: LogBatch) -> Result<bool, TailError> {
        for (id, renewal) in batch.renewals {
            self.last_renewal = id;
            // Dropped if the channel is full: a reader whose renewal is lost renews again.
            renewal.map(|renewal| self.renewals.try_send(renewal).ok());
        }
        // The copy can be further already, by the answers to appends after this read.
        let last_read = batch.entries.last().map_or(after, |(id, _)| *id).max(batch.trimmed);
        let is_empty = batch.entries.is_empty();
        self.copy.add(batch.trimmed, batch.entries);
        match batch.newest {
            Some(newest) if last_read <= newest => {}
            _ => return Err(TailError::LogShortened),
        }
        // The newest entry may have been deleted by hand, so an empty batch also is the end.
        Ok(is_empty || batch.newest == Some(last_read))
    }
}
