//! Messages of one subscription between the stream and the log: each is stored and then acked.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use google_cloud_pubsub::{
    model::Message as PubsubMessage,
    subscriber::handler::{ExactlyOnce, Handler},
};
use prometheus::IntCounterVec;
use tokio::{sync::watch, time::sleep};

use crate::{
    backplane::{PublishError, follower::Backoff},
    config::PUSH_BODY_MAX_BYTES,
    inlet::{DecodeError, Inlet, Outcome, classify::too_large, pull::key_queues::KeyQueues},
    limits::budget::Claim,
    model::{message::Message, topic::Topic},
};

/// Message that was taken from a stream.
pub(super) struct Taken {
    message: Result<Message, DecodeError>,
    key: Option<String>,
    /// Acks or nacks the message. Dropping it nacks.
    handler: Handler,
    /// Claim on the memory for messages in flight.
    claim: Claim,
}

type Storing = Pin<Box<dyn Future<Output = StoreResult> + Send>>;

/// Result of storing one message.
struct StoreResult {
    /// Ordering key of the message.
    key: Option<String>,
    /// Handler of a message to ack on a subscription with exactly-once delivery.
    confirm: Option<ExactlyOnce>,
}

/// Messages of one subscription that were taken and are not acked yet.
pub(super) struct Deliveries {
    inlet: Arc<Inlet>,
    stop: watch::Receiver<bool>,
    /// Largest number of messages that are stored or wait.
    max: usize,
    /// Number of messages that are stored or wait.
    taken: usize,
    storing: FuturesUnordered<Storing>,
    waiting: KeyQueues<Taken>,
    /// Messages that the log did not confirm, and that are tried again.
    unconfirmed: Arc<AtomicUsize>,
    /// Acks that Pub/Sub has not confirmed yet, of a subscription with exactly-once delivery.
    acking: FuturesUnordered<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// Counters of the results of those acks.
    acks: IntCounterVec,
}

impl Taken {
    /// Decodes a message of a stream.
    pub(super) fn new(
        topic: &Topic,
        message: PubsubMessage,
        handler: Handler,
        claim: Claim,
    ) -> Self {
        let key = Some(message.ordering_key.clone()).filter(|key| !key.is_empty());
        let message = decode(topic.clone(), message);
        Self { message, key, handler, claim }
    }
}

/// Returns the bytes of the parts of a message that can be long.
pub(super) fn size(message: &PubsubMessage) -> usize {
    let attributes = message.attributes.iter().map(|(name, value)| name.len() + value.len());
    message.data.len() + attributes.sum::<usize>() + message.ordering_key.len()
}

/// Turns a message of Google's library into the gateway's.
fn decode(topic: Topic, message: PubsubMessage) -> Result<Message, DecodeError> {
    let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    if PUSH_BODY_MAX_BYTES < size(&message) {
        return Err(too_large(non_empty(message.message_id)));
    }
    let publish_time_ms = message.publish_time.and_then(|time| {
        let seconds = u64::try_from(time.seconds()).ok()?;
        seconds.checked_mul(1_000)?.checked_add(u64::try_from(time.nanos()).ok()? / 1_000_000)
    });
    Ok(Message {
        topic,
        data: message.data,
        attributes: message.attributes.into_iter().collect::<BTreeMap<_, _>>(),
        ordering_key: non_empty(message.ordering_key),
        message_id: non_empty(message.message_id),
        publish_time_ms,
    })
}

impl Deliveries {
    /// Makes an empty set for at most `max` messages.
    pub(super) fn new(
        inlet: Arc<Inlet>,
        stop: watch::Receiver<bool>,
        max: usize,
        acks: IntCounterVec,
    ) -> Self {
        Self {
            inlet,
            stop,
            max,
            taken: 0,
            storing: FuturesUnordered::new(),
            waiting: KeyQueues::default(),
            unconfirmed: Arc::default(),
            acking: FuturesUnordered::new(),
            acks,
        }
    }

    /// Returns true if a message may be added: there is room, and the log confirms messages. While
    /// it does not, the messages that are held are tried again, and Pub/Sub keeps all others.
    pub(super) fn may_take(&self) -> bool {
        self.taken < self.max && self.unconfirmed.load(Ordering::SeqCst) == 0
    }

    /// Returns true if there is no message and no ack.
    pub(super) fn is_empty(&self) -> bool {
        self.storing.is_empty() && self.acking.is_empty()
    }

    /// Adds a message. Stores it when all earlier messages with its ordering key are stored.
    pub(super) fn add(&mut self, taken: Taken) {
        self.taken += 1;
        let key = taken.key.clone();
        if let Some(taken) = self.waiting.begin(key.as_deref(), taken) {
            self.store(taken);
        }
    }

    /// Waits until a message is stored or an ack is confirmed. Returns at once if there is none.
    pub(super) async fn step(&mut self) {
        tokio::select! {
            Some(stored) = self.storing.next() => self.end(stored),
            Some(is_confirmed) = self.acking.next() => {
                let result = if is_confirmed { "confirmed" } else { "failed" };
                self.acks.with_label_values(&[result]).inc();
            }
            else => {}
        }
    }

    fn store(&self, taken: Taken) {
        let (inlet, stop) = (Arc::clone(&self.inlet), self.stop.clone());
        self.storing.push(Box::pin(store(taken, inlet, Arc::clone(&self.unconfirmed), stop)));
    }

    /// Ends the storing of a message. Stores the next one with its ordering key or, at shutdown,
    /// nacks all of them.
    fn end(&mut self, stored: StoreResult) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(handler) = stored.confirm {
            self.acking.push(Box::pin(async move { handler.confirmed_ack().await.is_ok() }));
        }
        let Some(key) = stored.key else { return };
        if *self.stop.borrow() {
            // Not earlier: Pub/Sub could give these to another gateway before the message that was
            // being stored.
            for taken in self.waiting.remove(&key) {
                self.taken = self.taken.saturating_sub(1);
                taken.handler.nack();
            }
        } else if let Some(taken) = self.waiting.end(&key) {
            self.store(taken);
        }
    }
}

/// Stores a message and acks it, or nacks it.
async fn store(
    taken: Taken,
    inlet: Arc<Inlet>,
    unconfirmed: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) -> StoreResult {
    let Taken { message, key, handler, claim } = taken;
    let outcome = match message {
        Ok(message) => accept(message, &inlet, &unconfirmed, stop).await,
        Err(err) => inlet.reject(err),
    };
    drop(claim);
    let confirm = match (outcome, handler) {
        (Outcome::Stored(_) | Outcome::Duplicate(_) | Outcome::PoisonDropped(_), handler) => {
            match handler {
                Handler::ExactlyOnce(handler) => Some(handler),
                handler => {
                    handler.ack();
                    None
                }
            }
        }
        (_, handler) => {
            handler.nack();
            None
        }
    };
    StoreResult { key, confirm }
}

/// Stores a message. Tries again while the log does not confirm it: a nack would only bring the
/// message back at once, and count as a failed delivery. At shutdown it tries once more.
async fn accept(
    message: Message,
    inlet: &Inlet,
    unconfirmed: &Arc<AtomicUsize>,
    mut stop: watch::Receiver<bool>,
) -> Outcome {
    let mut backoff = Backoff::default();
    let mut guard = None;
    let mut is_last = false;
    loop {
        let outcome = inlet.accept(message.clone()).await;
        if is_last || outcome != Outcome::Unconfirmed(PublishError::Unconfirmed) {
            return outcome;
        }
        guard.get_or_insert_with(|| Unconfirmed::new(unconfirmed));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => is_last = true,
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Guard that counts a message that the log did not confirm. Dropping the guard ends the count.
struct Unconfirmed(Arc<AtomicUsize>);

impl Unconfirmed {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        "orders".parse().unwrap()
    }

    #[test]
    fn empty_fields_are_absent() {
        let message = decode(topic(), PubsubMessage::new()).unwrap();
        assert_eq!(message, Message::for_tests("orders", ""));
        let message = PubsubMessage::new().set_message_id("7").set_ordering_key("k");
        let message = decode(topic(), message.set_attributes([("event", "made")])).unwrap();
        assert_eq!(message.message_id.as_deref(), Some("7"));
        assert_eq!(message.ordering_key.as_deref(), Some("k"));
        assert_eq!(message.attributes.get("event").map(String::as_str), Some("made"));
    }

    #[test]
    fn a_message_over_the_limit_is_poison() {
        let large = |len| PubsubMessage::new().set_data(vec![b'x'; len]).set_message_id("7");
        assert!(decode(topic(), large(PUSH_BODY_MAX_BYTES)).is_ok());
        let Err(DecodeError::Poison(poison)) = decode(topic(), large(PUSH_BODY_MAX_BYTES + 1))
        else {
            panic!("a message over the limit is poison")
        };
        assert_eq!(poison.message_id.as_deref(), Some("7"));
    }
}
