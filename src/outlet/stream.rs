//! One reader's stream: the loop from its cursor to its socket.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Sleep};

use crate::{
    clock,
    connection::Watch,
    event::{Event, EventId},
    hub::{Gap, Hub, Subscriber},
    metrics::Metrics,
    outlet::blocks::{self, End},
};

/// The body of a response to `GET /events`. It is asked for more only while its socket takes more,
/// and then reads on from its cursor: that is all the flow control there is.
#[derive(Debug)]
pub struct EventStream {
    hub: Hub,
    subscriber: Subscriber,
    /// What was read and not yet given out. Empty between batches.
    events: Vec<Arc<Event>>,
    blocks: VecDeque<Bytes>,
    /// The last id that the reader was given.
    told: EventId,
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

/// What is given to the socket at a time: a reader that stops reading pins no more than this of its
/// own. It is a frame's size in HTTP/2, so the chunk that a stalled stream waits with is not
/// larger.
const SLICE_MAX_BYTES: usize = 16 * 1024;

impl EventStream {
    /// A stream that begins with the block `open`.
    pub fn new(
        (hub, subscriber): (Hub, Subscriber),
        open: Bytes,
        times: StreamTimes,
        watch: Watch,
        metrics: Metrics,
    ) -> Self {
        metrics.streams_opened.inc();
        let now = Instant::now();
        Self {
            hub,
            told: subscriber.opened_at(),
            subscriber,
            events: Vec::new(),
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

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(slice) = self.next_slice() {
                return Poll::Ready(Some(slice));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let now = Instant::now();
            self.heed_drain();
            if self.end_at <= now {
                self.end();
                continue;
            }
            match self.subscriber.poll_read(cx, &mut self.events) {
                Poll::Ready(gap) => {
                    self.written_at = now;
                    self.put(gap);
                }
                Poll::Pending if self.id_due => self.put_id(),
                Poll::Pending if self.poll_timer(cx).is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    /// The next bytes of the blocks, if there are any.
    fn next_slice(&mut self) -> Option<Bytes> {
        let block = self.blocks.front_mut()?;
        if SLICE_MAX_BYTES < block.len() {
            return Some(block.split_to(SLICE_MAX_BYTES));
        }
        let last = self.blocks.pop_front();
        if self.blocks.is_empty() {
            // Most streams are idle most of the time, and keep no buffer then.
            self.blocks = VecDeque::new();
            self.events = Vec::new();
        }
        last
    }

    /// What was read, as blocks: first what is missing, then what is there.
    fn put(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            self.metrics.gaps.with_label_values(&[gap.reason.as_str()]).inc();
            self.blocks.push_back(blocks::gap(&gap));
            self.id_due = true;
        }
        let Some(newest) = self.events.last() else { return };
        self.told = newest.id;
        self.id_due = false;
        if let Some(published_ms) = newest.publish_time_ms {
            let millis = clock::now_ms().saturating_sub(published_ms);
            self.metrics.latency.observe(Duration::from_millis(millis).as_secs_f64());
        }
        self.metrics.delivered.inc_by(self.events.len() as u64);
        self.blocks.extend(self.events.drain(..).map(|event| event.frame.clone()));
    }

    fn put_id(&mut self) {
        self.told = self.subscriber.cursor();
        self.id_due = false;
        self.blocks.push_back(blocks::id(self.told));
    }

    fn end(&mut self) {
        self.ended = true;
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
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let chunk = this.poll_chunk(cx);
        this.watch.asked(chunk.is_ready());
        chunk.map(|chunk| chunk.map(Ok))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if self.watch.was_closed() { "stalled" } else { "client" };
            self.metrics.streams_ended.with_label_values(&[reason]).inc();
        }
    }
}
