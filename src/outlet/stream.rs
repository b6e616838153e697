//! One reader's stream: the loop from its cursor to its socket.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Sleep};

use crate::{
    budget::{Budget, Claim},
    clock,
    event::{Event, EventId},
    hub::{Gap, Hub, Subscriber},
    metrics::Metrics,
    outlet::blocks::{self, End},
    watch::Watch,
};

/// The body of a response to `GET /events`. It is asked for more only while its socket takes more,
/// and then reads on from its cursor: that is all the flow control there is.
#[derive(Debug)]
pub struct EventStream {
    hub: Hub,
    subscriber: Subscriber,
    /// What is read into. Empty between reads.
    events: Vec<Arc<Event>>,
    /// What was read and not yet given out. Their rings own them: a reader that stops reading holds
    /// none of them, and goes back to its cursor if one is gone when its turn comes.
    batch: VecDeque<Weak<Event>>,
    /// The event that is being given out in slices, and how far.
    sliced: Option<(Held, usize)>,
    slow: Arc<Budget>,
    /// The gateway's own blocks, which come before the batch.
    blocks: VecDeque<Bytes>,
    /// The last id that the reader was given.
    told: EventId,
    /// Where reading goes on if the rest of the batch has left its rings.
    given_upto: EventId,
    /// Events after this were published while the stream was open.
    opened_at_head: EventId,
    /// A gap was told and nothing with an id after it.
    id_due: bool,
    keep_alive: Duration,
    written_at: Instant,
    end_at: Instant,
    end_reason: End,
    timer: Pin<Box<Sleep>>,
    ended: bool,
    watch: Watch,
    metrics: Metrics,
}

/// Times of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamTimes {
    /// Silence after which something is written.
    pub keep_alive: Duration,
    /// When it ends.
    pub end_at: Instant,
}

/// What is given to the socket at a time, and, beside its part of the budget below, all that a
/// reader that stops reading pins of events. It is a frame's size in HTTP/2. A slice of a larger
/// event is a copy, or it would pin all of it.
const SLICE_MAX_BYTES: usize = 16 * 1024;

/// Events that slow readers are in the middle of, over all streams, may have so many bytes that
/// their rings have let go of: a reader that takes longer for an event than its ring holds it gets
/// it all the same, as long as not too many do.
pub const SLOW_MAX_BYTES: usize = 64 * 1024 * 1024;

/// An event that is given out in slices.
#[derive(Debug)]
enum Held {
    /// Its ring may let go of it, and it stays.
    Claimed(Arc<Event>, #[expect(dead_code, reason = "given back when dropped")] Claim),
    /// It goes with its ring.
    Weak(Weak<Event>),
}

impl Held {
    fn new(event: &Arc<Event>, slow: &Arc<Budget>) -> Self {
        let mut claim = slow.claim();
        if claim.grow(event.size()) {
            Self::Claimed(Arc::clone(event), claim)
        } else {
            Self::Weak(Arc::downgrade(event))
        }
    }

    fn event(&self) -> Option<Arc<Event>> {
        match self {
            Self::Claimed(event, _) => Some(Arc::clone(event)),
            Self::Weak(event) => event.upgrade(),
        }
    }
}

/// The reader is so slow that the event it was in the middle of has left its ring. Its connection
/// is cut: its parser drops the part that it has, and it comes back with the id before, to be told.
#[derive(Debug, thiserror::Error)]
#[error("an event left its ring while it was being written to a slow reader")]
pub struct FellBehind;

impl EventStream {
    /// A stream that begins with the block `open`.
    pub fn new(
        (hub, subscriber): (Hub, Subscriber),
        open: Bytes,
        times: StreamTimes,
        watch: Watch,
        (metrics, slow): (Metrics, Arc<Budget>),
    ) -> Self {
        metrics.streams_opened.inc();
        let now = Instant::now();
        Self {
            told: subscriber.opened_at(),
            given_upto: subscriber.opened_at(),
            opened_at_head: hub.head(),
            hub,
            subscriber,
            events: Vec::new(),
            batch: VecDeque::new(),
            sliced: None,
            slow,
            blocks: VecDeque::from([open]),
            id_due: false,
            keep_alive: times.keep_alive,
            written_at: now,
            end_at: times.end_at,
            end_reason: End::MaxAge,
            timer: Box::pin(tokio::time::sleep_until((now + times.keep_alive).min(times.end_at))),
            ended: false,
            watch,
            metrics,
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FellBehind>>> {
        loop {
            if let Some(next) = self.next_slice() {
                return Poll::Ready(Some(next));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let now = Instant::now();
            self.heed_drain();
            // At its age a stream ends where it is, and its reader resumes. When the gateway
            // leaves, what is in its rings goes with it: the stream ends when it has given all of
            // that.
            if self.end_at <= now && self.end_reason == End::MaxAge {
                self.end();
                continue;
            }
            let before = self.subscriber.cursor();
            match self.subscriber.poll_read(cx, &mut self.events) {
                Poll::Ready(gap) => {
                    (self.written_at, self.given_upto) = (now, before);
                    self.put(gap);
                }
                Poll::Pending if self.id_due => self.put_id(),
                Poll::Pending if self.subscriber.has_more() => return Poll::Pending,
                Poll::Pending if self.end_at <= now => self.end(),
                Poll::Pending if self.poll_timer(cx).is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    /// The next bytes of what was read, if there are any.
    fn next_slice(&mut self) -> Option<Result<Bytes, FellBehind>> {
        if let Some(block) = self.blocks.pop_front() {
            return Some(Ok(block));
        }
        if let Some((held, from)) = self.sliced.take() {
            return Some(
                held.event().map_or(Err(FellBehind), |event| Ok(self.slice(&event, from, held))),
            );
        }
        if let Some(event) = self.batch.pop_front()?.upgrade() {
            let held = Held::Weak(Arc::downgrade(&event));
            return Some(Ok(self.slice(&event, 0, held)));
        }
        // It left its ring before its turn came. A new read tells the gap.
        self.batch = VecDeque::new();
        self.subscriber.rewind(self.given_upto);
        None
    }

    fn slice(&mut self, event: &Arc<Event>, from: usize, held: Held) -> Bytes {
        let upto = event.frame.len().min(from + SLICE_MAX_BYTES);
        if upto < event.frame.len() {
            let held = if from == 0 { Held::new(event, &self.slow) } else { held };
            self.sliced = Some((held, upto));
        } else {
            self.given(event);
        }
        if event.frame.len() <= SLICE_MAX_BYTES {
            return event.frame.clone();
        }
        Bytes::copy_from_slice(event.frame.get(from..upto).unwrap_or_default())
    }

    /// An event was given out whole.
    fn given(&mut self, event: &Event) {
        (self.told, self.given_upto) = (event.id, event.id);
        self.metrics.delivered.inc();
        if !self.batch.is_empty() {
            return;
        }
        // Most streams are idle most of the time, and keep no buffer then.
        self.batch = VecDeque::new();
        if let Some(published_ms) = event.publish_time_ms
            && self.opened_at_head < event.id
        {
            let millis = clock::now_ms().saturating_sub(published_ms);
            self.metrics.latency.observe(Duration::from_millis(millis).as_secs_f64());
        }
    }

    /// What was read: first what is missing, then what is there.
    fn put(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            self.metrics.gaps.with_label_values(&[gap.reason.as_str()]).inc();
            self.blocks.push_back(blocks::gap(&gap));
            self.id_due = true;
        }
        if !self.events.is_empty() {
            self.id_due = false;
            self.batch.extend(self.events.iter().map(Arc::downgrade));
            self.events = Vec::new();
        }
    }

    fn put_id(&mut self) {
        self.told = self.subscriber.cursor();
        self.id_due = false;
        self.blocks.push_back(blocks::id(self.told));
    }

    fn end(&mut self) {
        self.ended = true;
        // Not past a gap that was not told: then the cursor is what the reader brought.
        if self.told != self.subscriber.cursor() && !self.id_due {
            self.put_id();
        }
        self.blocks.push_back(blocks::end(self.end_reason));
        self.metrics.streams_ended.with_label_values(&[self.end_reason.as_str()]).inc();
    }

    /// When the gateway shuts down, each stream ends at a random time of its own, so that their
    /// readers do not all come to the other replicas at once.
    fn heed_drain(&mut self) {
        if self.end_reason == End::Draining {
            return;
        }
        let Some(drain) = self.hub.draining() else { return };
        // The last tenth is for the last blocks to reach their sockets.
        let share = rand::rng().random_range(0.0..0.9);
        let end_at = Instant::from_std(drain.from + drain.over.mul_f64(share));
        self.end_reason = End::Draining;
        self.end_at = self.end_at.min(end_at);
    }

    /// Ready when something was put into the blocks, or it is time to end.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // One timer for both ends, and it is not moved for every event: only when it fires too
            // early, or would fire too late.
            let due = (self.written_at + self.keep_alive).min(self.end_at);
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            self.timer.as_mut().reset((now + self.keep_alive).min(self.end_at));
            if self.end_at <= now {
                return Poll::Ready(());
            }
            if due <= now {
                self.written_at = now;
                if self.told == self.subscriber.cursor() {
                    self.blocks.push_back(blocks::KEEP_ALIVE);
                } else {
                    self.put_id();
                }
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}

impl MessageBody for EventStream {
    type Error = FellBehind;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehind>>> {
        let this = self.get_mut();
        let chunk = this.poll_chunk(cx);
        this.watch.asked(chunk.is_ready());
        if let Poll::Ready(Some(Err(FellBehind))) = chunk {
            this.ended = true;
            this.metrics.streams_ended.with_label_values(&["fell-behind"]).inc();
        }
        chunk
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if self.watch.was_stalled() { "stalled" } else { "client" };
            self.metrics.streams_ended.with_label_values(&[reason]).inc();
        }
    }
}
