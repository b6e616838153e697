//! The two ways of a stream to its socket: as the body of a response, which asks for what comes
//! next, and on its own.

use std::{
    cell::RefCell,
    hint::black_box,
    rc::{Rc, Weak},
    task::{Context, Poll},
};

use actix_web::web;
use bytes::Bytes;
use tokio::time::Instant;

use crate::stream::session::{Driver, FellBehindError, Stream, StreamInit};
use crate::{
    hub::{Listener, Subscriber},
    model::event::EventId,
    net::reaper::WatchGuard,
    stream::{
        Outlet,
        reactor::{DirectSocket, DriveResult},
    },
};

/// A stream that has much to give lets others go on after so many blocks.
const YIELD_EVERY: usize = 16;

impl Stream {
    /// A stream that is the body of a response.
    pub fn body(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        watch: WatchGuard,
        held: StreamInit,
    ) -> Rc<RefCell<Self>> {
        let due = (Instant::now() + outlet.keep_alive).min(held.end_at);
        let timer = Box::pin(tokio::time::sleep_until(due));
        let driver = Driver::Body { connection: Rc::clone(watch.connection()), watch, timer };
        Rc::new(RefCell::new(Self::new(outlet, subscriber, driver, held)))
    }

    /// A stream that writes itself. It is to be driven at once.
    pub fn direct(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        socket: DirectSocket,
        held: StreamInit,
    ) -> Rc<RefCell<Self>> {
        let stream =
            Rc::new(RefCell::new(Self::new(outlet, subscriber, Driver::Direct(socket), held)));
        Self::listen(&stream);
        stream
    }

    /// Has what is published written by the stream itself, without any task being woken.
    fn listen(this: &Rc<RefCell<Self>>) {
        let weak: Weak<RefCell<Self>> = Rc::downgrade(this);
        this.borrow().subscriber.listen(weak);
    }

    /// The same, of a body that goes out in chunks, while its socket is idle.
    pub fn write_directly(this: &Rc<RefCell<Self>>) {
        let takes_chunks = match &this.borrow().driver {
            Driver::Body { connection, .. } => connection.takes_chunks(),
            Driver::Direct(_) => false,
        };
        if takes_chunks {
            Self::listen(this);
        }
    }

    /// What comes next, for the response that this is the body of.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        let chunk = self.poll_chunk(cx);
        if let Driver::Body { connection, watch, timer: _ } = &self.driver {
            watch.asked(chunk.is_ready());
            if chunk.is_ready() {
                connection.mark_dirty();
            }
        }
        chunk
    }

    /// Something is left to do: whose task is not to be woken sees to it itself.
    fn is_not_done(&self) -> bool {
        match &self.driver {
            Driver::Body { .. } => false,
            Driver::Direct(socket) => {
                self.subscriber.stop_waiting();
                socket.schedule();
                true
            }
        }
    }

    /// Its socket, if it writes itself. It stands in no row from now on, so the stream has to be
    /// driven if it is to go on.
    pub fn direct_socket(&mut self) -> Option<&mut DirectSocket> {
        let Driver::Direct(socket) = &mut self.driver else { return None };
        if let Some(at) = socket.leave_broadcast() {
            self.subscriber.move_to(at.position);
            if self.last_sent_id < at.last_sent_id {
                self.last_sent_id = at.last_sent_id;
                self.written_at = at.written;
            }
        }
        Some(socket)
    }

    /// Has what comes next written for it by the row of its group, if there is one where it can
    /// stand. Returns whether.
    fn join_broadcast(&mut self) -> bool {
        let Driver::Direct(socket) = &mut self.driver else { return false };
        // A row that has not passed the gap would find it once more.
        let last_sent_id = if self.gap_sent { self.subscriber.cursor() } else { self.last_sent_id };
        let joined = socket.join_broadcast(&self.subscriber, last_sent_id, &self.outlet);
        if joined {
            self.gap_sent = false;
            self.subscriber.stop_waiting();
        }
        joined
    }

    /// How far to read when the group was rung for: if it has a row, then up to where that is, so
    /// as to stand in it. What is after that has rung for the row.
    fn upto(&self) -> EventId {
        match &self.driver {
            Driver::Direct(socket) => {
                socket.broadcast_cursor(&self.subscriber).unwrap_or(EventId::MAX)
            }
            Driver::Body { .. } => EventId::MAX,
        }
    }

    /// When there is something to do though nothing is published, of one that stands in a row and
    /// has nothing to do before.
    pub fn joined_until(&self) -> Option<Instant> {
        let Driver::Direct(socket) = &self.driver else { return None };
        let at = socket.broadcast_position()?;
        let written_at =
            if self.last_sent_id < at.last_sent_id { at.written } else { self.written_at };
        Some(self.due_after(written_at))
    }

    /// Writes what there is, for as long as the socket takes it, but not for ever.
    pub fn drive(&mut self) -> DriveResult {
        let Some(waker) = self.direct_socket().map(|socket| socket.waker()) else {
            return DriveResult::Broken;
        };
        let mut cx = Context::from_waker(&waker);
        for _ in 0..YIELD_EVERY {
            let flushed = self.direct_socket().map(|socket| (socket.flush(), socket.is_finished()));
            match flushed {
                Some((Ok(true), true)) => return DriveResult::Finished,
                Some((Ok(true), false)) => {}
                Some((Ok(false), _)) => {
                    // It may wait for events, after a keep-alive that was not taken.
                    self.subscriber.stop_waiting();
                    return DriveResult::Blocked;
                }
                Some((Err(_), _)) | None => return DriveResult::Broken,
            }
            let chunk = match self.poll_chunk(&mut cx) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending if self.subscriber.has_more() => return DriveResult::Yield,
                Poll::Pending => return DriveResult::WaitUntil(self.due()),
            };
            let Some(socket) = self.direct_socket() else { return DriveResult::Broken };
            match chunk {
                // What is not taken, and errors, are the next flush's.
                Some(Ok(chunk)) => drop(socket.write_chunk(&chunk)),
                Some(Err(FellBehindError)) => return DriveResult::Broken,
                None => socket.write_last_chunk(),
            }
        }
        self.subscriber.stop_waiting();
        DriveResult::Yield
    }
}

impl Listener for RefCell<Stream> {
    fn is_ready(&self) -> bool {
        let stream = self.borrow();
        // Looked at only to have them fetched: what the call needs lies in several places.
        black_box((stream.first.is_some(), stream.last_sent_id, stream.written_at));
        black_box(stream.subscriber.has_more());
        match &stream.driver {
            Driver::Body { connection, .. } => {
                black_box(connection.takes_chunks());
                connection.is_quiet() && stream.subscriber.hub().draining().is_none()
            }
            Driver::Direct(_) => true,
        }
    }

    fn call(&self, now: Instant) -> bool {
        let stream = &mut *self.borrow_mut();
        if stream.subscriber.hub().draining().is_none() && stream.first.is_none() {
            let upto = stream.upto();
            while stream.subscriber.position().after() < upto
                && let Some(read) = stream.subscriber.read_upto(upto)
            {
                let block = stream.encode(read);
                stream.written_at = now;
                let whole = match &mut stream.driver {
                    Driver::Body { connection, .. } => connection.write_chunk(&block),
                    Driver::Direct(socket) => socket.write_chunk(&block),
                };
                if !whole || stream.first.is_some() {
                    return stream.is_not_done();
                }
            }
            if !stream.checkpoint_due && (stream.join_broadcast() || !stream.subscriber.has_more())
            {
                return true;
            }
        }
        stream.is_not_done()
    }
}
