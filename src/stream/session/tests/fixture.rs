//! Gateway without sockets, and streams at a time that only the test changes.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
    time::Duration,
};

use actix_web::web;
use tokio::time::Instant;

use crate::{
    hub::{DedupLimits, GroupKey, Hub, Limits, Published, RingLimits, Shard, Start, TopicSet},
    model::{
        control::{Control, End, Open},
        encode::LINES,
        event_id::EventId,
        gap::Gap,
        message::Message,
        topic::{Topic, TopicPattern},
    },
    stream::{
        StreamContext,
        fold::Slow,
        pending::{LogAnswer, PendingStream},
        session::{Next, Session},
    },
};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time at which messages are published, Unix milliseconds.
pub(super) const NOW_MS: u64 = 1_000;
pub(super) const RING_AGE_MS: u64 = 60_000;

/// Returns limits that no test reaches, except `ring_events` for each topic.
pub(super) fn limits(ring_events: usize) -> Limits {
    Limits {
        ring: RingLimits { events: ring_events, bytes: usize::MAX },
        ring_age_ms: RING_AGE_MS,
        ring_bytes_total: usize::MAX,
        topics: 100,
        dedup: DedupLimits { age_ms: 0, ids: 0, ids_total: 0 },
        subscribers: 10,
        followed_bytes: usize::MAX,
        filters: 1_000,
    }
}

/// Creates an in-memory hub of history 7, which began before [`NOW_MS`].
pub(super) fn hub(ring_events: usize) -> Hub {
    Hub::new(limits(ring_events), 7, NOW_MS - 1)
}

pub(super) fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

/// Context of streams, with one worker.
pub(super) struct Gateway {
    pub(super) context: web::Data<StreamContext>,
    shard: Rc<Shard>,
    /// Time at which streams are opened.
    pub(super) begun: Instant,
}

impl Gateway {
    pub(super) fn new(hub: Hub) -> Self {
        Self::with(hub, |_| {})
    }

    /// Creates a gateway whose context is changed by `change`.
    pub(super) fn with(hub: Hub, change: impl FnOnce(&mut StreamContext)) -> Self {
        let shard = hub.add_shard();
        let mut context = StreamContext::for_tests(hub);
        context.keep_alive = KEEP_ALIVE;
        change(&mut context);
        Self { context: web::Data::new(context), shard, begun: Instant::now() }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.context.hub
    }

    /// Publishes data and returns the id of its event.
    pub(super) fn publish(&self, topic: &str, data: &str) -> EventId {
        self.publish_message(Message {
            publish_time_ms: Some(NOW_MS),
            ..Message::for_tests(topic, data.to_owned())
        })
    }

    /// Publishes a message and returns the id of its event.
    pub(super) fn publish_message(&self, message: Message) -> EventId {
        match self.hub().publish(message, NOW_MS) {
            Published::Stored(id) => id,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Returns a stream that follows `orders` and that can be changed before it is opened.
    pub(super) fn pending(&self, start: Start) -> PendingStream {
        let topics = TopicSet::new(vec![topic("orders")]);
        PendingStream {
            context: self.context.clone(),
            shard: Rc::clone(&self.shard),
            key: GroupKey { topics, filter: None, format: LINES },
            names: vec![TopicPattern::Exact(topic("orders"))],
            terms: None,
            start,
            fold: None,
            slow: Slow::Gap,
            presence: None,
            id: match start {
                Start::After(id) => Some(id),
                _ => None,
            },
            permit: None,
            end_at: self.begun + HOUR,
        }
    }

    /// Opens a stream that follows `orders`.
    pub(super) fn open(&self, start: Start) -> Stream {
        self.open_pending(self.pending(start))
    }

    pub(super) fn open_pending(&self, pending: PendingStream) -> Stream {
        Stream { session: Session::open(pending, self.begun).unwrap(), now: self.begun }
    }

    /// Returns a stream whose memory is reserved and that waits for the answer of the log.
    pub(super) fn wait_for_log(&self, pending: PendingStream) -> (Stream, Rc<LogAnswer>) {
        let claim = self.context.reserve(&pending.key).unwrap();
        let answer = LogAnswer::for_tests(claim);
        let session = Session::wait_for_log(pending, Rc::clone(&answer), self.begun);
        (Stream { session, now: self.begun }, answer)
    }

    /// Returns the number of streams that ended for `reason`.
    pub(super) fn ended(&self, reason: &str) -> u64 {
        self.context.metrics.streams_ended.with_label_values(&[reason]).get()
    }

    /// Returns the number of gaps that were sent for `reason`.
    pub(super) fn gaps(&self, reason: &str) -> u64 {
        self.context.metrics.gaps.with_label_values(&[reason]).get()
    }
}

/// Session and its time. Each method below takes one step, and fails if the session returns another
/// one.
pub(super) struct Stream {
    pub(super) session: Session,
    pub(super) now: Instant,
}

impl Stream {
    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    pub(super) fn next(&mut self) -> Next {
        self.session.next(self.now)
    }

    pub(super) fn say(&mut self) -> Control {
        match self.next() {
            Next::Say(control) => control,
            other => panic!("no control message: {other:?}"),
        }
    }

    pub(super) fn say_open(&mut self) -> Open {
        match self.say() {
            Control::Open(open) => *open,
            other => panic!("no open: {other:?}"),
        }
    }

    pub(super) fn say_gap(&mut self) -> Gap {
        match self.say() {
            Control::Gap(gap) => *gap,
            other => panic!("no gap: {other:?}"),
        }
    }

    /// Takes the last message and checks that nothing follows it.
    pub(super) fn say_end(&mut self) -> End {
        let Control::End(end) = self.say() else { panic!("no end") };
        assert!(matches!(self.next(), Next::Finished));
        end
    }

    /// Returns the time after which the driver asks again if nothing was published.
    pub(super) fn wait(&mut self) -> Duration {
        match self.next() {
            Next::WaitUntil(deadline) => deadline.saturating_duration_since(self.now),
            other => panic!("no wait: {other:?}"),
        }
    }

    pub(super) fn give(&mut self) -> String {
        match self.next() {
            Next::Give(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("no events: {other:?}"),
        }
    }
}

/// Waker that records that it was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicBool);

impl Woken {
    /// Registers a new waker with a stream that waits.
    pub(super) fn register(stream: &Stream) -> Arc<Self> {
        assert!(stream.session.needs_waker());
        let woken = Arc::<Self>::default();
        stream.session.wait(&Arc::clone(&woken).into());
        woken
    }

    pub(super) fn was_woken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
