//! Queue of the messages that pushes append to the log. Pushes that wait at the same time share a
//! call to Redis: the system calls and wake-ups of a call cost many times what a message costs.

use std::{sync::Arc, time::Duration};

use prometheus::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    backplane::{
        outcome::{Confirmed, PublishError},
        redis::{log_copy::LogCopy, shared_link::SharedLink},
    },
    model::message::Message,
};

/// Largest number of messages in one call. Redis does nothing else during a call, and takes some 10
/// µs for each message.
const CALL_MESSAGES: usize = 128;
/// Bytes after which no more messages are added to a call. The last message can exceed it.
const CALL_BYTES: usize = 1024 * 1024;
/// Largest number of messages in the queue. Further pushes wait for room in it.
const QUEUE_MAX: usize = 1024;

/// Message in the queue, and the push that waits for it.
type Waiting = (Message, Push);

/// Push that waits for the confirmation of its message.
#[derive(Debug)]
struct Push {
    /// Time at which the push asked for the confirmation.
    since: Instant,
    confirm: oneshot::Sender<Result<Confirmed, PublishError>>,
}

/// End of the queue at which pushes add messages.
#[derive(Debug)]
pub(crate) struct AppendQueue {
    waiting: mpsc::Sender<Waiting>,
    /// Longest time for the confirmation of a message, its time in the queue included.
    confirm_max: Duration,
}

impl AppendQueue {
    /// Appends a message to the log, after all messages that were added to the queue before.
    ///
    /// # Errors
    /// Fails when the log does not confirm the message in time. It may have been stored.
    pub(crate) async fn append(&self, message: Message) -> Result<Confirmed, PublishError> {
        let (confirm, confirmed) = oneshot::channel();
        let waiting = (message, Push { since: Instant::now(), confirm });
        let confirmation = async {
            self.waiting.send(waiting).await.ok()?;
            confirmed.await.ok()
        };
        // A call that appends goes on when the time of a push is over: it has messages of others.
        let confirmation = timeout(self.confirm_max, confirmation).await;
        confirmation.ok().flatten().unwrap_or(Err(PublishError::Unconfirmed))
    }
}

/// Task that takes messages from the queue and appends them to the log.
#[derive(Debug)]
pub(crate) struct Appender {
    waiting: mpsc::Receiver<Waiting>,
    link: Arc<SharedLink>,
    copy: Arc<LogCopy>,
    /// Histogram of the time from a push's request to the answer of Redis.
    times: Histogram,
}

impl Appender {
    /// Creates an appender that sends messages over `link` and adds them to `copy`, and its queue.
    pub(crate) fn new(
        link: Arc<SharedLink>,
        copy: Arc<LogCopy>,
        confirm_max: Duration,
        times: Histogram,
    ) -> (AppendQueue, Self) {
        let (sender, waiting) = mpsc::channel(QUEUE_MAX);
        let queue = AppendQueue { waiting: sender, confirm_max };
        (queue, Self { waiting, link, copy, times })
    }

    /// Appends messages until the queue is dropped. One call is under way at a time, which keeps
    /// the order. A message that finds none is sent at once; messages that arrive during a call
    /// share the next one.
    pub(crate) async fn run(mut self) {
        let mut messages = Vec::with_capacity(CALL_MESSAGES);
        let mut pushes = Vec::with_capacity(CALL_MESSAGES);
        while let Some(first) = self.waiting.recv().await {
            let (mut next, mut bytes) = (Some(first), 0);
            while let Some((message, push)) = next {
                // A push that was cancelled or has waited too long gets no confirmation.
                if !push.confirm.is_closed() {
                    bytes += size(&message);
                    messages.push(message);
                    pushes.push(push);
                }
                let has_room = messages.len() < CALL_MESSAGES && bytes < CALL_BYTES;
                next = if has_room { self.waiting.try_recv().ok() } else { None };
            }
            self.append(&mut messages, &mut pushes).await;
            // Messages without an answer are not confirmed: this drops their senders.
            messages.clear();
            pushes.clear();
        }
    }

    /// Appends messages, adds them to the copy of the log, and answers those pushes whose message
    /// Redis answers.
    async fn append(&self, messages: &mut Vec<Message>, pushes: &mut Vec<Push>) {
        if messages.is_empty() {
            return;
        }
        let Some(mut link) = self.link.get_followed() else { return };
        let position = self.copy.begin_append(link.server());
        let appended = link.append(position.newest, position.is_followed(), messages).await;
        let now = Instant::now();
        for push in &*pushes {
            self.times.observe(now.duration_since(push.since).as_secs_f64());
        }
        match appended {
            Ok(appended) => {
                let messages = messages.drain(..);
                self.copy.end_append(&position, messages, &appended.results, appended.before);
                for (push, result) in pushes.drain(..).zip(appended.results) {
                    let result = result.map_err(|err| {
                        self.link.report_error(&link, &err);
                        PublishError::Unconfirmed
                    });
                    // Fails if the push was cancelled.
                    push.confirm.send(result).ok();
                }
            }
            Err(err) => {
                self.link.report_error(&link, &err);
                self.copy.end_append(&position, messages.drain(..), &[], None);
            }
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
