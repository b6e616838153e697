//! Queue of the messages that pushes append to the log. Pushes that wait at the same time share a
//! call to Redis: the system calls and wake-ups of a call cost many times what a message costs.

use std::{io, sync::Arc, time::Duration};

use prometheus::Histogram;
use redis::{RedisError, RedisResult};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    backplane::{
        outcome::{Confirmed, PublishError},
        redis::shared_link::SharedLink,
    },
    hub::Hub,
    model::message::Message,
};

/// Largest number of messages in one call. Redis does nothing else during a call, and takes some 10
/// µs for each message.
const CALL_MESSAGES: usize = 128;
/// Bytes after which no more messages are added to a call. The last message can exceed it.
const CALL_BYTES: usize = 1024 * 1024;
/// Largest number of messages in the queue. Further pushes wait for room in it.
const QUEUE_MAX: usize = 1024;

/// Message that waits for its confirmation.
#[derive(Debug)]
struct Waiting {
    message: Message,
    /// Time at which the push asked for the confirmation.
    since: Instant,
    confirm: oneshot::Sender<Result<Confirmed, PublishError>>,
}

/// End of the queue at which pushes add messages.
#[derive(Debug)]
pub(crate) struct AppendQueue(mpsc::Sender<Waiting>);

impl AppendQueue {
    /// Appends a message to the log, after all messages that were added to the queue before.
    ///
    /// # Errors
    /// Fails when the log does not confirm the message in time. It may have been stored.
    pub(crate) async fn append(&self, message: Message) -> Result<Confirmed, PublishError> {
        let (confirm, confirmed) = oneshot::channel();
        let waiting = Waiting { message, since: Instant::now(), confirm };
        self.0.send(waiting).await.map_err(|_| PublishError::Unconfirmed)?;
        confirmed.await.unwrap_or(Err(PublishError::Unconfirmed))
    }
}

/// Task that takes messages from the queue and appends them to the log.
#[derive(Debug)]
pub(crate) struct Appender {
    waiting: mpsc::Receiver<Waiting>,
    link: Arc<SharedLink>,
    hub: Hub,
    /// Longest time for the confirmation of a message, its time in the queue included.
    confirm_max: Duration,
    /// Histogram of the time from a push's request to the answer of Redis.
    times: Histogram,
}

impl Appender {
    /// Creates an appender that sends messages over `link`, and its queue. `hub` has the newest
    /// event that this replica has read.
    pub(crate) fn new(
        link: Arc<SharedLink>,
        hub: Hub,
        confirm_max: Duration,
        times: Histogram,
    ) -> (AppendQueue, Self) {
        let (sender, waiting) = mpsc::channel(QUEUE_MAX);
        (AppendQueue(sender), Self { waiting, link, hub, confirm_max, times })
    }

    /// Appends messages until the queue is dropped. One call is under way at a time, which keeps
    /// the order. A message that finds none is sent at once; messages that arrive during a call
    /// share the next one.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(CALL_MESSAGES);
        while let Some(first) = self.waiting.recv().await {
            let mut bytes = size(&first.message);
            batch.push(first);
            while batch.len() < CALL_MESSAGES && bytes < CALL_BYTES {
                let Ok(next) = self.waiting.try_recv() else { break };
                bytes += size(&next.message);
                batch.push(next);
            }
            // A push that was cancelled or has waited too long gets no confirmation.
            let now = Instant::now();
            let in_time = |waiting: &Waiting| now < waiting.since + self.confirm_max;
            batch.retain(|waiting| in_time(waiting) && !waiting.confirm.is_closed());
            self.append(&mut batch).await;
            // Messages without an answer are not confirmed: this drops their senders.
            batch.clear();
        }
    }

    /// Appends a batch, the oldest message first, and answers those messages that Redis answers.
    async fn append(&self, batch: &mut Vec<Waiting>) {
        let Some(mut link) = self.link.get_followed() else { return };
        let Some(oldest) = batch.first() else { return };
        let deadline = oldest.since + self.confirm_max;
        let messages = batch.iter().map(|waiting| &waiting.message);
        let appending = link.append(self.hub.head(), messages);
        let timed_out = |_| Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
        let appended: RedisResult<_> =
            timeout_at(deadline, appending).await.unwrap_or_else(timed_out);
        for waiting in &*batch {
            self.times.observe(waiting.since.elapsed().as_secs_f64());
        }
        match appended {
            Ok(results) => {
                for (waiting, result) in batch.drain(..).zip(results) {
                    let result = result.map_err(|err| {
                        self.link.report_error(&link, &err);
                        PublishError::Unconfirmed
                    });
                    // Fails if the push was cancelled.
                    waiting.confirm.send(result).ok();
                }
            }
            Err(err) => self.link.report_error(&link, &err),
        }
    }
}

/// Returns the bytes of the parts of a message that can be long.
fn size(message: &Message) -> usize {
    let attributes = message.attributes.iter().map(|(key, value)| key.len() + value.len());
    message.data.len()
        + attributes.sum::<usize>()
        + message.ordering_key.as_ref().map_or(0, String::len)
}
