//! One reader's stream: the loop from its cursor to its socket.

pub mod drive;

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_web::web;
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Sleep};

use crate::{
    hub::{BATCH_MAX_BYTES, Read, ReadEvents, Subscriber},
    model::event::{Event, EventId},
    net::{connection::Connection, reaper::WatchGuard},
    stream::{
        Outlet,
        control::{self, End},
        large::LargeEvent,
        lease::Expiry,
        limits::StreamPermit,
        reactor::DirectSocket,
    },
};

/// A reader's stream, whoever writes it.
#[derive(Debug)]
pub struct Stream {
    outlet: web::Data<Outlet>,
    subscriber: Subscriber,
    /// What goes out before anything is read.
    first: Option<Box<First>>,
    /// The last id that the reader was given.
    last_sent_id: EventId,
    /// Events after this were published while the stream was open.
    opened_at_head: EventId,
    /// A gap was told and nothing with an id after it.
    checkpoint_due: bool,
    /// A gap was told since it last stood in a row.
    gap_sent: bool,
    written_at: Instant,
    end_at: Instant,
    end_reason: End,
    expiry: Option<Box<Expiry>>,
    ended: bool,
    driver: Driver,
    _counted: Option<Box<StreamPermit>>,
}

/// What goes out before anything is read.
#[derive(Debug)]
enum First {
    /// The first block.
    Open(Bytes),
    /// The event that is being given out in slices, and how far.
    Sliced(LargeEvent, usize),
}

/// How it gets to its socket.
#[derive(Debug)]
enum Driver {
    /// It is the body of a response, and is asked for more when the socket has taken what was given
    /// before.
    Body { connection: Rc<Connection>, watch: WatchGuard, timer: Pin<Box<Sleep>> },
    /// It writes itself.
    Direct(DirectSocket),
}

/// What a stream is made with.
#[derive(Debug)]
pub struct StreamInit {
    /// The first block.
    pub open: Bytes,
    pub end_at: Instant,
    pub counted: Option<Box<StreamPermit>>,
    /// None if it may go on for ever.
    pub expiry: Option<Expiry>,
}

/// The reader is so slow that the event it was in the middle of has left its ring. Its connection
/// is cut: its parser drops the part that it has, and it comes back with the id before, to be told.
#[derive(Debug, thiserror::Error)]
#[error("an event left its ring while it was being written to a slow reader")]
pub struct FellBehindError;

impl Stream {
    fn new(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        driver: Driver,
        held: StreamInit,
    ) -> Self {
        outlet.metrics.streams_opened.inc();
        Self {
            last_sent_id: subscriber.opened_at(),
            opened_at_head: subscriber.hub().head(),
            outlet,
            subscriber,
            first: Some(Box::new(First::Open(held.open))),
            checkpoint_due: false,
            gap_sent: false,
            written_at: Instant::now(),
            end_at: held.end_at,
            end_reason: End::MaxAge,
            expiry: held.expiry.map(Box::new),
            ended: false,
            driver,
            _counted: held.counted,
        }
    }

    /// When there is something to do though nothing was published.
    fn due(&self) -> Instant {
        self.due_after(self.written_at)
    }

    fn due_after(&self, written_at: Instant) -> Instant {
        let expires = self.expiry.as_ref().map_or(self.end_at, |expiry| expiry.due());
        (written_at + self.outlet.keep_alive).min(self.end_at).min(expires)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        self.subscriber.stop_waiting();
        match self.first.take().map(|first| *first) {
            Some(First::Open(open)) => return Poll::Ready(Some(Ok(open))),
            Some(First::Sliced(held, from)) => {
                let slice = held.event().map(|event| self.slice(&event, from, held));
                if slice.is_none() {
                    self.ended = true;
                    self.outlet.metrics.streams_ended.with_label_values(&["fell-behind"]).inc();
                }
                return Poll::Ready(Some(slice.ok_or(FellBehindError)));
            }
            None => {}
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
        self.check_drain();
        if let Some(block) = self.poll_expiry(cx, now) {
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
            Poll::Ready(read) => self.encode(read),
            Poll::Pending if self.checkpoint_due => self.checkpoint(),
            Poll::Pending if self.subscriber.has_more() => return Poll::Pending,
            Poll::Pending if self.end_at <= now => return Poll::Ready(self.end()),
            Poll::Pending => return self.poll_timer(cx),
        };
        self.written_at = now;
        Poll::Ready(block)
    }

    /// What was read: first what is missing, then what is there.
    fn encode(&mut self, read: Read) -> Bytes {
        let gap = read.gap.map(|gap| {
            self.outlet.metrics.gaps.with_label_values(&[gap.reason.as_str()]).inc();
            (self.checkpoint_due, self.gap_sent) = (true, true);
            control::gap(&gap)
        });
        let events = read.events.map(|events| {
            self.checkpoint_due = false;
            match events {
                ReadEvents::Batch(block) => {
                    self.record_delivered(block.events, block.newest, block.publish_time_ms);
                    block.bytes
                }
                ReadEvents::Large(event) => {
                    let held = LargeEvent::new(&event, &self.outlet.large_events);
                    self.slice(&event, 0, held)
                }
            }
        });
        match (gap, events) {
            (Some(gap), Some(events)) => [gap, events].concat().into(),
            (gap, events) => gap.or(events).unwrap_or(control::KEEP_ALIVE),
        }
    }

    /// The next part of a large event. It is a copy, or it would pin all of it.
    fn slice(&mut self, event: &Arc<Event>, from: usize, held: LargeEvent) -> Bytes {
        let upto = event.frame.len().min(from + BATCH_MAX_BYTES);
        if upto < event.frame.len() {
            self.first = Some(Box::new(First::Sliced(held, upto)));
        } else {
            self.record_delivered(1, event.id, event.publish_time_ms);
        }
        Bytes::copy_from_slice(event.frame.get(from..upto).unwrap_or_default())
    }

    /// Events were given out whole.
    fn record_delivered(&mut self, events: u64, newest: EventId, publish_time_ms: Option<u64>) {
        self.last_sent_id = newest;
        let is_live = self.opened_at_head < newest;
        self.outlet.record_delivered(1, events, publish_time_ms.filter(|_| is_live));
    }

    fn checkpoint(&mut self) -> Bytes {
        self.last_sent_id = self.subscriber.cursor();
        self.checkpoint_due = false;
        control::id(self.last_sent_id)
    }

    fn end(&mut self) -> Bytes {
        self.ended = true;
        self.outlet.metrics.streams_ended.with_label_values(&[self.end_reason.as_str()]).inc();
        let end = control::end(self.end_reason);
        // Not past a gap that was not told: then the cursor is what the reader brought.
        if self.last_sent_id != self.subscriber.cursor() && !self.checkpoint_due {
            return [self.checkpoint(), end].concat().into();
        }
        end
    }

    /// When the gateway shuts down, each stream ends at a random time of its own, so that their
    /// readers do not all come to the other replicas at once.
    fn check_drain(&mut self) {
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
    fn poll_expiry(&mut self, cx: &Context<'_>, now: Instant) -> Option<Bytes> {
        let expiry = self.expiry.as_mut()?;
        expiry.wake(cx.waker());
        if let Some(left) = expiry.news(now).filter(|left| !left.is_zero()) {
            self.written_at = now;
            return Some(control::auth(left));
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
            let due = self.due();
            // One timer for all of it, and it is not moved for every event: only when it fires too
            // early, or would fire too late. Who writes itself has none, and is driven when due.
            if let Driver::Body { timer, .. } = &mut self.driver {
                if due < timer.deadline() {
                    timer.as_mut().reset(due);
                }
                ready!(timer.as_mut().poll(cx));
            }
            let now = Instant::now();
            if let Some(block) = self.poll_expiry(cx, now) {
                return Poll::Ready(block);
            }
            if self.end_at <= now {
                return Poll::Ready(self.end());
            }
            if self.written_at + self.outlet.keep_alive <= now {
                self.written_at = now;
                let all_told = self.last_sent_id == self.subscriber.cursor();
                return Poll::Ready(if all_told { control::KEEP_ALIVE } else { self.checkpoint() });
            }
            let due = self.due();
            match &mut self.driver {
                Driver::Body { timer, .. } => timer.as_mut().reset(due),
                Driver::Direct(_) => return Poll::Pending,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            let stalled = match &self.driver {
                Driver::Body { watch, .. } => watch.was_stalled(),
                Driver::Direct(socket) => socket.is_stalled(),
            };
            let reason = if stalled { "stalled" } else { "client" };
            self.outlet.metrics.streams_ended.with_label_values(&[reason]).inc();
        }
    }
}
