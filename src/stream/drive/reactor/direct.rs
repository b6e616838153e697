//! Direct stream: a session and the socket that the reactor writes it to.

use std::{
    cell::RefCell,
    hint::black_box,
    net::TcpStream,
    rc::{Rc, Weak},
    task::Waker,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    hub::{Listener, Subscriber},
    model::event_id::EventId,
    stream::{
        drive::reactor::socket::DirectSocket,
        session::{Next, Session},
    },
};

/// Stream over a socket that it writes to itself, without a task and without buffers.
#[derive(Debug)]
pub(super) struct DirectStream {
    session: Session,
    socket: DirectSocket,
    /// Waker of the stream, for a renewal of its token and an answer of the log.
    waker: Waker,
}

/// Result of driving a stream.
#[derive(Debug)]
pub(super) enum DriveResult {
    /// There is nothing to do until this time, unless something is published.
    WaitUntil(Instant),
    /// There is more to do, after other streams were driven.
    Yield,
    /// The socket takes no more bytes now.
    Blocked,
    /// The response has ended, and the socket took all of it.
    Finished,
    /// The client of a connection in both directions has answered no keep-alives.
    Silent,
    /// The stream has ended within a large event, or before one.
    FellBehind,
    /// The connection is gone.
    Broken,
}

/// Number of writes after which a stream that has more to send lets other streams write.
const WRITES_PER_TURN: usize = 16;

impl DirectStream {
    /// Creates a stream. It must be driven at once.
    pub(super) fn new(session: Session, socket: DirectSocket, waker: Waker) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { session, socket, waker }))
    }

    /// Returns the session, the socket, and the bytes that the socket did not take. `None` if the
    /// socket is gone.
    pub(super) fn into_parts(mut self) -> Option<(Session, TcpStream, Bytes)> {
        let socket = self.socket();
        let (io, rest) = (socket.take()?, socket.take_rest());
        Some((self.session, io, rest))
    }

    /// Returns the socket. The stream leaves its broadcast, so it must be driven to continue.
    pub(super) fn socket(&mut self) -> &mut DirectSocket {
        if let Some(at) = self.socket.leave_broadcast() {
            self.session.leave(at);
        }
        &mut self.socket
    }

    /// Marks the stream, before its end, as one whose reader took nothing, if `is_stalled` or if
    /// the socket reported that.
    pub(super) fn mark_end(&mut self, is_stalled: bool) {
        if is_stalled || self.socket.is_stalled() {
            self.session.mark_stalled();
        }
    }

    /// Writes available bytes until the socket is full, but at most [`WRITES_PER_TURN`] times.
    pub(super) fn drive(this: &Rc<RefCell<Self>>) -> DriveResult {
        let stream = &mut *this.borrow_mut();
        let result = stream.drive_turn();
        // A stream that waited for the log had no subscriber before.
        if let Some(subscriber) = stream.session.subscriber()
            && !subscriber.is_listening()
        {
            let weak: Weak<RefCell<Self>> = Rc::downgrade(this);
            subscriber.listen(weak);
        }
        result
    }

    fn drive_turn(&mut self) -> DriveResult {
        self.socket();
        for _ in 0..WRITES_PER_TURN {
            match self.socket.flush() {
                Ok(true) if self.socket.is_finished() => return DriveResult::Finished,
                Ok(true) => {}
                Ok(false) => {
                    self.session.mark_blocked();
                    // The subscriber may wait for events if the socket did not take a keep-alive.
                    if let Some(subscriber) = self.session.subscriber() {
                        subscriber.stop_waiting();
                    }
                    return DriveResult::Blocked;
                }
                Err(_) => return DriveResult::Broken,
            }
            let next = self.session.next(Instant::now());
            if self.socket.is_duplex() && self.session.is_silent() {
                return DriveResult::Silent;
            }
            let chunk = match next {
                Next::Give(bytes) => bytes,
                Next::Say(control) => self.session.format().control(&control),
                // Nothing is to be sent with the head.
                Next::WaitUntil(_) if self.socket.begin() => continue,
                Next::WaitUntil(deadline) => {
                    self.session.wait(&self.waker);
                    return DriveResult::WaitUntil(deadline);
                }
                Next::Yield => return DriveResult::Yield,
                Next::Finished => {
                    self.socket.write_last_chunk();
                    continue;
                }
                Next::FellBehind => return DriveResult::FellBehind,
            };
            // The next flush writes the bytes that were not taken, and finds errors.
            let _is_whole = self.socket.write_chunk(&chunk);
        }
        if let Some(subscriber) = self.session.subscriber() {
            subscriber.stop_waiting();
        }
        DriveResult::Yield
    }

    /// Returns the deadline of a stream that is a member of a broadcast.
    pub(super) fn member_deadline(&self) -> Option<Instant> {
        Some(self.session.member_deadline(self.socket.member_position()?))
    }

    /// Makes the reactor drive the stream, instead of its waker being called.
    fn schedule(&self) -> bool {
        if let Some(subscriber) = self.session.subscriber() {
            subscriber.stop_waiting();
        }
        self.socket.schedule();
        true
    }

    /// Joins the broadcast of its group, if there is one at its position. Returns true if the
    /// stream joined.
    fn join_broadcast(&mut self) -> bool {
        let sent_upto = self.session.sent_upto();
        let Some(subscriber) = self.session.subscriber() else { return false };
        let context = self.session.context();
        let joined = self.socket.join_broadcast(subscriber, sent_upto, context);
        if let Some(at) = joined {
            self.session.join(at);
        }
        joined.is_some()
    }

    /// Writes new events. Returns true if nothing is left to do for the notifier.
    fn write_published(&mut self, now: Instant) -> bool {
        // If the group has a broadcast, reads only up to its position, so that the stream can join
        // it: the broadcast was notified of the events after that.
        let upto = self
            .session
            .subscriber()
            .and_then(|subscriber| self.socket.broadcast_cursor(subscriber));
        let upto = upto.unwrap_or(EventId::MAX);
        loop {
            let Some(subscriber) = self.session.reading() else { return self.schedule() };
            if upto <= subscriber.position().after() {
                break;
            }
            let Some(read) = subscriber.read_upto(upto) else { break };
            let chunk = match self.session.take_read(read, now) {
                Next::Give(bytes) => bytes,
                Next::Say(control) => self.session.format().control(&control),
                _ => return self.schedule(),
            };
            if !self.socket.write_chunk(&chunk) {
                return self.schedule();
            }
        }
        let has_more = self.session.subscriber().is_some_and(Subscriber::has_more);
        if !self.session.is_checkpoint_due() && (self.join_broadcast() || !has_more) {
            return true;
        }
        self.schedule()
    }
}

impl Listener for RefCell<DirectStream> {
    fn is_ready(&self) -> bool {
        let stream = self.borrow();
        // Reads the fields only to fetch their memory: the call needs fields in several places.
        black_box((stream.session.sent_upto(), stream.session.next_deadline()));
        black_box(stream.session.subscriber().is_some_and(Subscriber::has_more));
        true
    }

    fn call(&self, now: Instant) -> bool {
        self.borrow_mut().write_published(now)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that is idle takes at most 512 bytes, of which this is the largest part.
    #[test]
    fn a_stream_takes_few_bytes() {
        let bytes = size_of::<RefCell<DirectStream>>();
        assert!(
            bytes <= 272,
            "{bytes} bytes: put what few streams have into Extras of the session"
        );
    }
}
