//! Task of one subscription: opens its stream, takes messages, and opens the stream again when it
//! has ended.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use google_cloud_pubsub::{model::Message as PubsubMessage, subscriber::handler::Handler};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    inlet::pull::{
        Pull,
        client::{Client, Opened},
        delivery::{Deliveries, Taken, size},
        failure::Failure,
        pauses::Pauses,
        stream_watch::{Finding, StreamState, StreamWatch},
    },
    telemetry::throttle::LogThrottle,
};

/// Time between two looks at a stream that gives no message. Short, since the library tries again
/// without a pause after some errors.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two checks for free memory for messages.
const MEMORY_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time at shutdown for the messages that are being stored. It is shorter if the process
/// ends sooner.
const STORING_MAX: Duration = Duration::from_secs(5);
/// Longest time for the last acks and nacks, after [`STORING_MAX`].
const ACKS_MAX: Duration = Duration::from_secs(1);

/// Pulls a subscription until shutdown.
pub(super) async fn pull(pull: Pull) {
    let progress = Arc::clone(&pull.progress);
    let mut puller = Puller::new(pull);
    puller.run().await;
    puller.shut_down().await;
    progress.running.fetch_sub(1, Ordering::SeqCst);
}

/// Task of one subscription.
struct Puller {
    pull: Pull,
    client: Client,
    deliveries: Deliveries,
    /// Streams that have ended and whose last acks are being sent.
    closing: JoinSet<()>,
    /// True while the stream is open: the last value of the gauge.
    is_open: bool,
    /// True after the first time that the stream was open.
    was_open: bool,
    log: LogThrottle,
}

/// Reason why no more messages are taken from a stream.
enum End {
    /// The gateway shuts down.
    Stop,
    /// The stream was silent for long: it is idle, or its connection is dead.
    Silence,
    Failure(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Puller {
    fn new(pull: Pull) -> Self {
        let max = usize::try_from(pull.config.messages).unwrap_or(usize::MAX);
        let acks = pull.metrics.pull.acks.clone();
        let deliveries = Deliveries::new(Arc::clone(&pull.inlet), pull.stop.clone(), max, acks);
        let mut puller = Self {
            client: Client::new(&pull.config),
            pull,
            deliveries,
            closing: JoinSet::new(),
            is_open: false,
            was_open: false,
            log: LogThrottle::default(),
        };
        puller.set_open(false);
        puller
    }

    /// Takes messages until shutdown.
    async fn run(&mut self) {
        let mut pauses = Pauses::default();
        loop {
            let opened = Instant::now();
            let failure = match self.subscribe().await {
                End::Failure(failure) => failure,
                End::Silence => {
                    // An idle stream has not failed. If the peer is dead, the next stream cannot be
                    // opened.
                    self.count("silent");
                    let subscription = &self.pull.subscription.name;
                    tracing::debug!(subscription, "a silent stream is opened anew");
                    pauses = Pauses::default();
                    continue;
                }
                End::Stop => return self.set_open(false),
            };
            self.set_open(false);
            self.report(&failure);
            if failure.is_of_credentials() {
                self.client.forget_credentials();
            }
            if !self.wait(pauses.after(opened.elapsed())).await {
                return;
            }
        }
    }

    /// Waits, and goes on with the messages that were taken. Returns false at shutdown.
    async fn wait(&mut self, time: Duration) -> bool {
        let mut stop = self.pull.stop.clone();
        let mut end = pin!(sleep(time));
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return false,
                () = &mut end => return true,
                () = self.deliveries.step(), if !self.deliveries.is_empty() => {}
            }
        }
    }

    /// Opens a stream and takes its messages.
    async fn subscribe(&mut self) -> End {
        let mut stop = self.pull.stop.clone();
        let opened = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return End::Stop,
            opened = self.client.open(&self.pull.subscription.name) => opened,
        };
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(failure) => return End::Failure(failure),
        };
        let end = self.take_all(&mut opened).await;
        // The library goes on with the leases and acks of messages that were taken, and nacks the
        // others.
        let token = opened.stream.shutdown_token();
        while self.closing.try_join_next().is_some() {}
        self.closing.spawn(async move { token.shutdown().await });
        end
    }

    /// Takes the messages of a stream until it ends, or until shutdown.
    async fn take_all(&mut self, opened: &mut Opened) -> End {
        let mut is_open = false;
        loop {
            let (message, handler) = match self.next(opened, &mut is_open).await {
                Ok(message) => message,
                Err(end) => return end,
            };
            if !is_open {
                is_open = true;
                self.set_open(true);
            }
            if !self.take(message, handler).await {
                return End::Stop;
            }
        }
    }

    /// Returns the next message of a stream. Goes on with the messages that were taken meanwhile.
    async fn next(
        &mut self,
        opened: &mut Opened,
        is_open: &mut bool,
    ) -> Result<(PubsubMessage, Handler), End> {
        let Opened { stream, attempts } = opened;
        let mut stop = self.pull.stop.clone();
        let mut watch = StreamWatch::new(Instant::now());
        let mut look = pin!(sleep(STREAM_CHECK_INTERVAL));
        // One call for a message: a call that is dropped early would open the stream again.
        let mut next = pin!(stream.next());
        loop {
            let may_take = self.deliveries.may_take();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Err(End::Stop),
                () = self.deliveries.step(), if !self.deliveries.is_empty() => {}
                next = &mut next, if may_take => return match next {
                    Some(Ok(message)) => Ok(message),
                    Some(Err(err)) => Err(Failure::Stream(Box::new(err)).into()),
                    None => Err(Failure::Ended.into()),
                },
                () = &mut look => {
                    look.set(sleep(STREAM_CHECK_INTERVAL));
                    let state = StreamState {
                        is_open: *is_open,
                        is_asking: may_take,
                        is_idle: self.deliveries.is_empty(),
                        calls: attempts.get(),
                    };
                    match watch.look(Instant::now(), state) {
                        Finding::Unchanged => {}
                        Finding::Open => {
                            *is_open = true;
                            self.set_open(true);
                        }
                        Finding::Unavailable => return Err(Failure::Unavailable.into()),
                        Finding::Silent => return Err(End::Silence),
                    }
                }
            }
        }
    }

    /// Adds a message when there is memory for it. Returns false at shutdown.
    async fn take(&mut self, message: PubsubMessage, handler: Handler) -> bool {
        let mut claim = self.pull.in_flight.claim();
        // A message that is larger than all the memory is refused for its size.
        while !claim.grow(size(&message)) && !claim.grow_alone(size(&message)) {
            if !self.wait(MEMORY_CHECK_INTERVAL).await {
                return false;
            }
        }
        self.deliveries.add(Taken::new(&self.pull.subscription.topic, message, handler, claim));
        true
    }

    /// Waits until the messages that are being stored are acked and the acks are sent. Nacks the
    /// messages for which the time is not enough.
    async fn shut_down(mut self) {
        let leave_within = self.pull.leave_within;
        let storing_max =
            STORING_MAX.min(leave_within.saturating_sub(ACKS_MAX.min(leave_within / 2)));
        let stored = async {
            while !self.deliveries.is_empty() {
                self.deliveries.step().await;
            }
        };
        let is_stored = timeout(storing_max, stored).await.is_ok();
        drop(self.deliveries);
        let sent = async { while self.closing.join_next().await.is_some() {} };
        if timeout(ACKS_MAX, sent).await.is_err() || !is_stored {
            let subscription = &self.pull.subscription.name;
            tracing::warn!(subscription, "not all messages were stored and acked in time");
        }
    }

    /// Sets the gauge that says whether the stream is open.
    fn set_open(&mut self, is_open: bool) {
        let gauge = self.pull.metrics.pull.up.with_label_values(&[&self.pull.subscription.name]);
        gauge.set(i64::from(is_open));
        if is_open && !self.was_open {
            self.was_open = true;
            self.pull.progress.opened.fetch_add(1, Ordering::SeqCst);
        }
        if is_open && !self.is_open {
            let (subscription, topic) =
                (&self.pull.subscription.name, &self.pull.subscription.topic);
            tracing::info!(subscription, %topic, "pulling");
        }
        self.is_open = is_open;
    }

    /// Counts a stream that ended or could not be opened.
    fn count(&self, reason: &str) {
        self.pull.metrics.pull.reconnects.with_label_values(&[reason]).inc();
    }

    /// Counts and logs a failure.
    fn report(&self, failure: &Failure) {
        let reason = failure.as_str();
        self.count(reason);
        if let Some(more) = self.log.log(std::time::Instant::now()) {
            let subscription = &self.pull.subscription;
            tracing::warn!(
                subscription = subscription.name,
                reason,
                error = failure.text(),
                remedy = failure.remedy(subscription),
                more,
                "the stream of a subscription ended"
            );
        }
    }
}
