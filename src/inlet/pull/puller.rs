//! Task of one subscription: opens its stream, takes messages, and opens the stream again when it
//! has ended.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::{
    client::Subscriber,
    model::Message as PubsubMessage,
    subscriber::{MessageStream, handler::Handler},
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    backplane::follower::Backoff,
    inlet::pull::{
        Pull,
        delivery::{Deliveries, Taken, size},
        failure::Failure,
    },
    telemetry::throttle::LogThrottle,
};

/// Lease of a message, which the library extends while it is stored. After this time at the latest,
/// the messages of a gateway that was killed come to the others. 10 s is the library's minimum.
const LEASE: Duration = Duration::from_secs(10);
/// Bytes of messages that Pub/Sub sends before it waits for acks. The library holds at most one
/// answer of Pub/Sub, which is not larger.
const OUTSTANDING_MAX_BYTES: i64 = 16 * 1024 * 1024;
/// Silence after which a stream counts as open: Pub/Sub refuses one sooner, and says nothing on one
/// that is open before there is a message.
const OPEN_AFTER: Duration = Duration::from_secs(2);
/// Life of a stream after which the next failure is the first of a new row.
const LIVED: Duration = Duration::from_secs(30);
/// Longest time for a connection to Pub/Sub.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time between two looks for room in the memory for messages.
const ROOM_TICK: Duration = Duration::from_millis(20);
/// Longest time for the last acks.
const ACKS_MAX: Duration = Duration::from_secs(5);

/// Pulls a subscription until shutdown.
pub(super) async fn pull(pull: Pull) {
    let mut puller = Puller::new(pull);
    puller.run().await;
    puller.leave().await;
    puller.pull.progress.running.fetch_sub(1, Ordering::SeqCst);
}

/// Task of one subscription.
struct Puller {
    pull: Pull,
    deliveries: Deliveries,
    /// Streams that have ended and whose last acks are being sent.
    closing: JoinSet<()>,
    /// True after the first time that the stream was open.
    was_open: bool,
    log: LogThrottle,
}

/// Reason why no more messages are taken from a stream.
enum End {
    /// The gateway shuts down.
    Stop,
    Failure(Failure),
}

impl Puller {
    fn new(pull: Pull) -> Self {
        let max = usize::try_from(pull.config.messages).unwrap_or(usize::MAX);
        let acks = pull.metrics.pull.acks.clone();
        let deliveries = Deliveries::new(Arc::clone(&pull.inlet), pull.stop.clone(), max, acks);
        let closing = JoinSet::new();
        let mut puller =
            Self { pull, deliveries, closing, was_open: false, log: LogThrottle::default() };
        puller.set_open(false);
        puller
    }

    /// Takes messages until shutdown.
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let opened = Instant::now();
            let end = self.subscribe().await;
            self.set_open(false);
            let End::Failure(failure) = end else { return };
            self.report(&failure);
            if LIVED < opened.elapsed() {
                backoff.reset();
            }
            if !self.wait(backoff.next()).await {
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
            opened = open(&self.pull) => opened,
        };
        let mut stream = match opened {
            Ok(stream) => Box::new(stream),
            Err(failure) => return End::Failure(failure),
        };
        let end = self.take_all(&mut stream).await;
        // The library goes on with the leases and acks of messages that were taken, and nacks the
        // others.
        let token = stream.shutdown_token();
        while self.closing.try_join_next().is_some() {}
        self.closing.spawn(async move { token.shutdown().await });
        end
    }

    /// Takes the messages of a stream until it ends, or until shutdown.
    async fn take_all(&mut self, stream: &mut MessageStream) -> End {
        let mut is_open = false;
        loop {
            let mut stop = self.pull.stop.clone();
            let mut quiet = pin!(sleep(OPEN_AFTER));
            // One call for each message: a call that is dropped would open the stream again.
            let mut next = pin!(stream.next());
            let next = loop {
                let may_take = self.deliveries.may_take();
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return End::Stop,
                    () = self.deliveries.step(), if !self.deliveries.is_empty() => {}
                    next = &mut next, if may_take => break next,
                    () = &mut quiet, if !is_open => {
                        is_open = true;
                        self.set_open(true);
                    }
                }
            };
            let (message, handler) = match next {
                Some(Ok(message)) => message,
                Some(Err(err)) => return End::Failure(Failure::Stream(Box::new(err))),
                None => return End::Failure(Failure::Ended),
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

    /// Adds a message when there is memory for it. Returns false at shutdown.
    async fn take(&mut self, message: PubsubMessage, handler: Handler) -> bool {
        let mut claim = self.pull.in_flight.claim();
        // A message that is larger than all the memory is refused for its size.
        while !claim.grow(size(&message)) && !claim.grow_alone(size(&message)) {
            if !self.wait(ROOM_TICK).await {
                return false;
            }
        }
        self.deliveries.add(Taken::new(&self.pull.subscription.topic, message, handler, claim));
        true
    }

    /// Goes on until the messages that are being stored are acked and the acks are sent.
    async fn leave(&mut self) {
        self.deliveries.give_up_waiting();
        let acks = async {
            while !self.deliveries.is_empty() {
                self.deliveries.step().await;
            }
            while self.closing.join_next().await.is_some() {}
        };
        if timeout(ACKS_MAX, acks).await.is_err() {
            let subscription = &self.pull.subscription.name;
            tracing::warn!(subscription, "acks were not sent in time: Pub/Sub sends again");
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
        if is_open {
            let (subscription, topic) =
                (&self.pull.subscription.name, &self.pull.subscription.topic);
            tracing::info!(subscription, %topic, "pulling");
        }
    }

    /// Counts and logs a failure.
    fn report(&self, failure: &Failure) {
        let reason = failure.as_str();
        self.pull.metrics.pull.reconnects.with_label_values(&[reason]).inc();
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

/// Connects to Pub/Sub, to see that it can be reached, and makes a stream.
///
/// The library tries again without an end and without a word when it cannot connect.
async fn open(pull: &Pull) -> Result<MessageStream, Failure> {
    let endpoint = &pull.config.endpoint;
    check_reachable(endpoint).await.map_err(Failure::Unreachable)?;
    let mut builder = Subscriber::builder().with_endpoint(endpoint);
    if endpoint.starts_with("http:") {
        builder = builder.with_credentials(anonymous::Builder::new().build());
    }
    let client = builder.build().await.map_err(|err| Failure::Client(err.to_string()))?;
    Ok(client
        .subscribe(&pull.subscription.name)
        .set_max_lease_extension(LEASE)
        .set_max_outstanding_messages(pull.config.messages)
        .set_max_outstanding_bytes(OUTSTANDING_MAX_BYTES)
        .build())
}

/// Connects to the host of a URL, and closes the connection.
async fn check_reachable(endpoint: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(endpoint).map_err(|err| err.to_string())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    match timeout(CONNECT_MAX, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) => Err(format!("{endpoint}: {err}")),
        Err(_) => Err(format!("{endpoint}: no connection within {} s", CONNECT_MAX.as_secs())),
    }
}
