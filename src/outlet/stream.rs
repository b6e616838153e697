//! One reader's stream: the loop from its cursor to its socket.

use std::{
    cell::RefCell,
    hint::black_box,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{self, Arc},
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    body::{BodySize, MessageBody},
    web,
};
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Sleep};

use crate::{
    budget::{Budget, Claim},
    clock,
    connection::Connection,
    event::{Event, EventId},
    hub::{BLOCK_MAX_BYTES, Events, Listener, Read, Subscriber},
    outlet::{
        Outlet,
        blocks::{self, End},
        lease::Expiry,
        limits::Counted,
    },
    watch::Watch,
};

/// The body of a response to `GET /events`. It is asked for more only while its socket takes more,
/// and then reads on from its cursor: that is all the flow control there is.
#[derive(Debug)]
pub struct EventStream(Rc<RefCell<Stream>>);

#[derive(Debug)]
struct Stream {
    outlet: web::Data<Outlet>,
    subscriber: Subscriber,
    /// The first block.
    open: Option<Bytes>,
    /// The event that is being given out in slices, and how far.
    sliced: Option<(HeldEvent, usize)>,
    /// The last id that the reader was given.
    told: EventId,
    /// Events after this were published while the stream was open.
    opened_at_head: EventId,
    /// A gap was told and nothing with an id after it.
    id_due: bool,
    written_at: Instant,
    end_at: Instant,
    end_reason: End,
    expiry: Option<Box<Expiry>>,
    timer: Pin<Box<Sleep>>,
    ended: bool,
    connection: Rc<Connection>,
    watch: Watch,
    _counted: Counted,
}

/// What a stream has for as long as it is open.
#[derive(Debug)]
pub struct Held {
    pub watch: Watch,
    pub counted: Counted,
    /// None if it may go on for ever.
    pub expiry: Option<Expiry>,
}

/// Events that slow readers are in the middle of, over all streams, may have so many bytes that
/// their rings have let go of: a reader that takes longer for an event than its ring holds it gets
/// it all the same, as long as not too many do.
pub const SLOW_MAX_BYTES: usize = 64 * 1024 * 1024;

/// An event that is given out in slices.
#[derive(Debug)]
enum HeldEvent {
    /// Its ring may let go of it, and it stays.
    Claimed(Arc<Event>, #[expect(dead_code, reason = "given back when dropped")] Claim),
    /// It goes with its ring.
    Weak(sync::Weak<Event>),
}

impl HeldEvent {
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
    /// A stream that begins with the block `open` and ends at `end_at`.
    pub fn new(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        open: Bytes,
        end_at: Instant,
        held: Held,
    ) -> Self {
        let Held { watch, counted, expiry } = held;
        outlet.metrics.streams_opened.inc();
        let now = Instant::now();
        let due = (now + outlet.keep_alive).min(end_at);
        let expiry = expiry.map(Box::new);
        let stream = Stream {
            told: subscriber.opened_at(),
            opened_at_head: subscriber.hub().head(),
            outlet,
            subscriber,
            open: Some(open),
            sliced: None,
            id_due: false,
            written_at: now,
            end_at,
            end_reason: End::MaxAge,
            expiry,
            timer: Box::pin(tokio::time::sleep_until(due)),
            ended: false,
            connection: Rc::clone(watch.connection()),
            watch,
            _counted: counted,
        };
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Lets the stream write to its socket itself while that is idle, without its task being woken:
    /// for a response in chunks only. What a task and its buffers cost is many times what it costs
    /// to write one event.
    pub fn write_straight(&self) {
        let stream = self.0.borrow();
        if stream.connection.takes_chunks() {
            let weak: Weak<RefCell<Stream>> = Rc::downgrade(&self.0);
            stream.subscriber.listen(weak);
        }
    }
}

impl Listener for RefCell<Stream> {
    fn is_ready(&self) -> bool {
        let stream = self.borrow();
        // Looked at only to have them fetched: what the call needs lies in several places.
        black_box((stream.open.is_some(), stream.sliced.is_some(), stream.told, stream.written_at));
        black_box((stream.subscriber.has_more(), stream.connection.takes_chunks()));
        stream.connection.is_quiet() && stream.subscriber.hub().draining().is_none()
    }

    fn call(&self, now: Instant) -> bool {
        let mut stream = self.borrow_mut();
        while let Some(read) = stream.subscriber.read() {
            let block = stream.give(read);
            stream.written_at = now;
            if !stream.connection.write_chunk(&block) || stream.sliced.is_some() {
                return false;
            }
        }
        !stream.subscriber.has_more() && !stream.id_due
    }
}

impl Stream {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FellBehind>>> {
        self.subscriber.wait_no_more();
        if let Some(open) = self.open.take() {
            return Poll::Ready(Some(Ok(open)));
        }
        if let Some((held, from)) = self.sliced.take() {
            let slice = held.event().map(|event| self.slice(&event, from, held));
            return Poll::Ready(Some(slice.ok_or(FellBehind)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.poll_block(cx).map(|block| Some(Ok(block)))
    }

    /// What comes next when all that was read is given out. Never empty, since an empty chunk would
    /// end the response.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let now = Instant::now();
        self.heed_drain();
        if let Some(block) = self.heed_expiry(cx, now) {
            return Poll::Ready(block);
        }
        // At its age a stream ends where it is, and its reader resumes. When the gateway leaves,
        // what is in its rings goes with it, unless it is elsewhere too: then the stream ends when
        // it has given all of that.
        let is_held_on = self.end_reason != End::Draining || self.subscriber.hub().is_copy();
        if self.end_at <= now && is_held_on {
            return Poll::Ready(self.end());
        }
        let block = match self.subscriber.poll_read(cx) {
            Poll::Ready(read) => self.give(read),
            Poll::Pending if self.id_due => self.give_id(),
            Poll::Pending if self.subscriber.has_more() => return Poll::Pending,
            Poll::Pending if self.end_at <= now => return Poll::Ready(self.end()),
            Poll::Pending => return self.poll_timer(cx),
        };
        self.written_at = now;
        Poll::Ready(block)
    }

    /// What was read: first what is missing, then what is there.
    fn give(&mut self, read: Read) -> Bytes {
        let gap = read.gap.map(|gap| {
            self.outlet.metrics.gaps.with_label_values(&[gap.reason.as_str()]).inc();
            self.id_due = true;
            blocks::gap(&gap)
        });
        let events = read.events.map(|events| {
            self.id_due = false;
            match events {
                Events::Block(block) => {
                    self.given(block.events, block.newest, block.publish_time_ms);
                    block.bytes
                }
                Events::Large(event) => {
                    let held = HeldEvent::new(&event, &self.outlet.slow);
                    self.slice(&event, 0, held)
                }
            }
        });
        match (gap, events) {
            (Some(gap), Some(events)) => [gap, events].concat().into(),
            (gap, events) => gap.or(events).unwrap_or(blocks::KEEP_ALIVE),
        }
    }

    /// The next part of a large event. It is a copy, or it would pin all of it.
    fn slice(&mut self, event: &Arc<Event>, from: usize, held: HeldEvent) -> Bytes {
        let upto = event.frame.len().min(from + BLOCK_MAX_BYTES);
        if upto < event.frame.len() {
            self.sliced = Some((held, upto));
        } else {
            self.given(1, event.id, event.publish_time_ms);
        }
        Bytes::copy_from_slice(event.frame.get(from..upto).unwrap_or_default())
    }

    /// Events were given out whole.
    fn given(&mut self, events: u64, newest: EventId, publish_time_ms: Option<u64>) {
        self.told = newest;
        self.outlet.metrics.delivered.inc_by(events);
        if let Some(published_ms) = publish_time_ms
            && self.opened_at_head < newest
        {
            let millis = clock::now_ms().saturating_sub(published_ms);
            self.outlet.metrics.latency.observe(Duration::from_millis(millis).as_secs_f64());
        }
    }

    fn give_id(&mut self) -> Bytes {
        self.told = self.subscriber.cursor();
        self.id_due = false;
        blocks::id(self.told)
    }

    fn end(&mut self) -> Bytes {
        self.ended = true;
        self.outlet.metrics.streams_ended.with_label_values(&[self.end_reason.as_str()]).inc();
        let end = blocks::end(self.end_reason);
        // Not past a gap that was not told: then the cursor is what the reader brought.
        if self.told != self.subscriber.cursor() && !self.id_due {
            return [self.give_id(), end].concat().into();
        }
        end
    }

    /// When the gateway shuts down, each stream ends at a random time of its own, so that their
    /// readers do not all come to the other replicas at once.
    fn heed_drain(&mut self) {
        if self.end_reason == End::Draining {
            return;
        }
        let Some(drain) = self.subscriber.hub().draining() else { return };
        // The last tenth is for the last blocks to reach their sockets.
        let share = rand::rng().random_range(0.0..0.9);
        let end_at = Instant::from_std(drain.from + drain.over.mul_f64(share));
        self.end_reason = End::Draining;
        self.end_at = self.end_at.min(end_at);
    }

    /// What the reader is to be told of its token. The stream ends with it, whatever it had to
    /// give still.
    fn heed_expiry(&mut self, cx: &Context<'_>, now: Instant) -> Option<Bytes> {
        let expiry = self.expiry.as_mut()?;
        expiry.wake(cx.waker());
        if let Some(left) = expiry.news(now).filter(|left| !left.is_zero()) {
            self.written_at = now;
            return Some(blocks::auth(left));
        }
        if expiry.at <= now {
            self.end_reason = End::Expired;
            return Some(self.end());
        }
        None
    }

    /// Ready after a time of silence, or when it is time to end.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            // One timer for both ends, and it is not moved for every event: only when it fires too
            // early, or would fire too late.
            let keep_alive = self.outlet.keep_alive;
            let expires = self.expiry.as_ref().map_or(self.end_at, |expiry| expiry.due());
            let end_at = self.end_at.min(expires);
            let due = (self.written_at + keep_alive).min(end_at);
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            self.timer.as_mut().reset((now + keep_alive).min(end_at));
            if let Some(block) = self.heed_expiry(cx, now) {
                return Poll::Ready(block);
            }
            if self.end_at <= now {
                return Poll::Ready(self.end());
            }
            if due <= now {
                self.written_at = now;
                let all_told = self.told == self.subscriber.cursor();
                return Poll::Ready(if all_told { blocks::KEEP_ALIVE } else { self.give_id() });
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
        let mut this = self.0.borrow_mut();
        let chunk = this.poll_chunk(cx);
        this.watch.asked(chunk.is_ready());
        if chunk.is_ready() {
            this.connection.is_due();
        }
        if let Poll::Ready(Some(Err(FellBehind))) = chunk {
            this.ended = true;
            this.outlet.metrics.streams_ended.with_label_values(&["fell-behind"]).inc();
        }
        chunk
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if self.watch.was_stalled() { "stalled" } else { "client" };
            self.outlet.metrics.streams_ended.with_label_values(&[reason]).inc();
        }
    }
}
