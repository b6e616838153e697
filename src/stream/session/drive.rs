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

use crate::stream::session::{FellBehind, Held, Stream, Way};
use crate::{
    hub::{Listener, Subscriber},
    model::event::EventId,
    net::reaper::Watch,
    stream::{
        Outlet,
        reactor::{Driven, LeanSocket},
    },
};

/// A stream that has much to give lets others go on after so many blocks.
const BLOCKS_IN_TURN: usize = 16;

impl Stream {
    /// A stream that is the body of a response.
    pub fn body(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        watch: Watch,
        held: Held,
    ) -> Rc<RefCell<Self>> {
        let due = (Instant::now() + outlet.keep_alive).min(held.end_at);
        let timer = Box::pin(tokio::time::sleep_until(due));
        let way = Way::Body { connection: Rc::clone(watch.connection()), watch, timer };
        Rc::new(RefCell::new(Self::new(outlet, subscriber, way, held)))
    }

    /// A stream that writes itself. It is to be driven at once.
    pub fn lean(
        outlet: web::Data<Outlet>,
        subscriber: Subscriber,
        socket: LeanSocket,
        held: Held,
    ) -> Rc<RefCell<Self>> {
        let stream = Rc::new(RefCell::new(Self::new(outlet, subscriber, Way::Lean(socket), held)));
        Self::listen(&stream);
        stream
    }

    /// Has what is published written by the stream itself, without any task being woken.
    fn listen(this: &Rc<RefCell<Self>>) {
        let weak: Weak<RefCell<Self>> = Rc::downgrade(this);
        this.borrow().subscriber.listen(weak);
    }

    /// The same, of a body that goes out in chunks, while its socket is idle.
    pub fn write_straight(this: &Rc<RefCell<Self>>) {
        let takes_chunks = match &this.borrow().way {
            Way::Body { connection, .. } => connection.takes_chunks(),
            Way::Lean(_) => false,
        };
        if takes_chunks {
            Self::listen(this);
        }
    }

    /// What comes next, for the response that this is the body of.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FellBehind>>> {
        let chunk = self.poll_chunk(cx);
        if let Way::Body { connection, watch, timer: _ } = &self.way {
            watch.asked(chunk.is_ready());
            if chunk.is_ready() {
                connection.is_due();
            }
        }
        chunk
    }

    /// Something is left to do: whose task is not to be woken sees to it itself.
    fn is_not_done(&self) -> bool {
        match &self.way {
            Way::Body { .. } => false,
            Way::Lean(socket) => {
                self.subscriber.wait_no_more();
                socket.drive_soon();
                true
            }
        }
    }

    /// Its socket, if it writes itself. It stands in no row from now on, so the stream has to be
    /// driven if it is to go on.
    pub fn lean_socket(&mut self) -> Option<&mut LeanSocket> {
        let Way::Lean(socket) = &mut self.way else { return None };
        if let Some(at) = socket.step_out() {
            self.subscriber.move_to(at.position);
            if self.told < at.told {
                self.told = at.told;
                self.written_at = at.written;
            }
        }
        Some(socket)
    }

    /// Has what comes next written for it by the row of its group, if there is one where it can
    /// stand. Returns whether.
    fn stand_in_row(&mut self) -> bool {
        let Way::Lean(socket) = &mut self.way else { return false };
        // A row that has not passed the gap would find it once more.
        let told = if self.gap_told { self.subscriber.cursor() } else { self.told };
        let stands = socket.stand_in_row(&self.subscriber, told, &self.outlet);
        if stands {
            self.gap_told = false;
            self.subscriber.wait_no_more();
        }
        stands
    }

    /// How far to read when the group was rung for: if it has a row, then up to where that is, so
    /// as to stand in it. What is after that has rung for the row.
    fn upto(&self) -> EventId {
        match &self.way {
            Way::Lean(socket) => socket.row_at(&self.subscriber).unwrap_or(EventId::MAX),
            Way::Body { .. } => EventId::MAX,
        }
    }

    /// When there is something to do though nothing is published, of one that stands in a row and
    /// has nothing to do before.
    pub fn stands_until(&self) -> Option<Instant> {
        let Way::Lean(socket) = &self.way else { return None };
        let at = socket.stands_at()?;
        let written_at = if self.told < at.told { at.written } else { self.written_at };
        Some(self.due_after(written_at))
    }

    /// Writes what there is, for as long as the socket takes it, but not for ever.
    pub fn drive(&mut self) -> Driven {
        let Some(waker) = self.lean_socket().map(|socket| socket.waker()) else {
            return Driven::Broken;
        };
        let mut cx = Context::from_waker(&waker);
        for _ in 0..BLOCKS_IN_TURN {
            let flushed = self.lean_socket().map(|socket| (socket.flush(), socket.is_over()));
            match flushed {
                Some((Ok(true), true)) => return Driven::Over,
                Some((Ok(true), false)) => {}
                Some((Ok(false), _)) => {
                    // It may wait for events, after a keep-alive that was not taken.
                    self.subscriber.wait_no_more();
                    return Driven::Blocked;
                }
                Some((Err(_), _)) | None => return Driven::Broken,
            }
            let chunk = match self.poll_chunk(&mut cx) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending if self.subscriber.has_more() => return Driven::Again,
                Poll::Pending => return Driven::Waits(self.due()),
            };
            let Some(socket) = self.lean_socket() else { return Driven::Broken };
            match chunk {
                // What is not taken, and errors, are the next flush's.
                Some(Ok(chunk)) => drop(socket.write_chunk(&chunk)),
                Some(Err(FellBehind)) => return Driven::Broken,
                None => socket.write_last_chunk(),
            }
        }
        self.subscriber.wait_no_more();
        Driven::Again
    }
}

impl Listener for RefCell<Stream> {
    fn is_ready(&self) -> bool {
        let stream = self.borrow();
        // Looked at only to have them fetched: what the call needs lies in several places.
        black_box((stream.first.is_some(), stream.told, stream.written_at));
        black_box(stream.subscriber.has_more());
        match &stream.way {
            Way::Body { connection, .. } => {
                black_box(connection.takes_chunks());
                connection.is_quiet() && stream.subscriber.hub().draining().is_none()
            }
            Way::Lean(_) => true,
        }
    }

    fn call(&self, now: Instant) -> bool {
        let stream = &mut *self.borrow_mut();
        if stream.subscriber.hub().draining().is_none() && stream.first.is_none() {
            let upto = stream.upto();
            while stream.subscriber.position().after() < upto
                && let Some(read) = stream.subscriber.read_upto(upto)
            {
                let block = stream.give(read);
                stream.written_at = now;
                let whole = match &mut stream.way {
                    Way::Body { connection, .. } => connection.write_chunk(&block),
                    Way::Lean(socket) => socket.write_chunk(&block),
                };
                if !whole || stream.first.is_some() {
                    return stream.is_not_done();
                }
            }
            if !stream.id_due && (stream.stand_in_row() || !stream.subscriber.has_more()) {
                return true;
            }
        }
        stream.is_not_done()
    }
}
