//! Direct socket: the socket of a stream that the reactor writes to.

use std::{
    io, mem,
    net::TcpStream,
    rc::{Rc, Weak},
};

use actix_web::web;
use bytes::Bytes;

use crate::stream::{
    drive::reactor::{Reactor, broadcast::SocketBroadcast, framing::Framing},
    session::MemberPosition,
};
use crate::{
    hub::Subscriber, model::event_id::EventId, net::http1::chunk::send_rest, stream::StreamContext,
};

/// Socket that a stream writes to without a task and without buffers.
#[derive(Debug)]
pub(super) struct DirectSocket {
    /// Socket of the stream. `None` after it was taken, or while the stream is a member of a
    /// broadcast.
    io: Option<TcpStream>,
    broadcast: Option<(Rc<SocketBroadcast>, u32)>,
    /// Part of the last chunk that the socket did not take.
    rest: Option<Box<Bytes>>,
    by: Weak<Reactor>,
    key: u32,
    /// True if the socket took bytes since this field was last read.
    progress: bool,
    framing: Framing,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head is not written yet. It is written together with the first chunk, which saves a
    /// system call and a packet.
    New,
    Open,
    /// The end of the response was written.
    Last,
    /// The connection is gone.
    Broken,
    /// The reader took nothing for too long.
    Stalled,
}

impl DirectSocket {
    /// Creates a socket. `head` is written before all chunks, with the first of them. It is empty
    /// if it was written.
    pub(super) fn new(
        io: TcpStream,
        head: Bytes,
        framing: Framing,
        by: Weak<Reactor>,
        key: u32,
    ) -> Self {
        let state = if head.is_empty() { State::Open } else { State::New };
        let rest = (!head.is_empty()).then(|| Box::new(head));
        Self { io: Some(io), broadcast: None, rest, by, key, progress: false, framing, state }
    }

    /// Writes a chunk. Must be called after [`DirectSocket::flush`] has returned true. Returns true
    /// if the socket took all of it.
    pub(super) fn write_chunk(&mut self, chunk: &Bytes) -> bool {
        if self.state == State::New {
            self.state = State::Open;
            let head = self.rest.take().unwrap_or_default();
            self.keep(self.framing.after(&head, chunk));
            return self.flush().unwrap_or_default();
        }
        debug_assert!(self.rest.is_none(), "chunks do not overtake each other");
        if self.rest.is_some() {
            self.state = State::Broken;
            return false;
        }
        match self.io.as_ref().map(|io| self.framing.send(io, chunk)) {
            Some(Ok(sent)) => {
                self.progress |= 0 < sent.bytes;
                self.keep(sent.rest)
            }
            Some(Err(err)) => self.fail(&err),
            None => false,
        }
    }

    /// Stores the part of a chunk, which a broadcast wrote, that the socket did not take.
    pub(super) fn set_rest(&mut self, rest: io::Result<Bytes>) {
        match rest {
            Ok(rest) => {
                self.keep(rest);
            }
            Err(err) => {
                self.fail(&err);
            }
        }
    }

    /// Returns the cursor of the group's broadcast, if there is one.
    pub(super) fn broadcast_cursor(&self, subscriber: &Subscriber) -> Option<EventId> {
        self.by.upgrade()?.broadcast(subscriber.reader().group()).map(|broadcast| broadcast.after())
    }

    /// Joins the broadcast of the group, if there is one at the same position. Returns the position
    /// in the broadcast if the stream joined.
    pub(super) fn join_broadcast(
        &mut self,
        subscriber: &Subscriber,
        last_sent_id: EventId,
        context: &web::Data<StreamContext>,
    ) -> Option<MemberPosition> {
        let broadcast = self.by.upgrade()?.broadcast_of(subscriber, context)?;
        let io = self.io.take()?;
        match broadcast.join(io, self.key, subscriber, last_sent_id) {
            Ok(slot) => self.broadcast = Some((broadcast, slot)),
            Err(io) => self.io = Some(io),
        }
        self.member_position()
    }

    /// Returns the position in the broadcast, if the stream is a member.
    pub(super) fn member_position(&self) -> Option<MemberPosition> {
        self.broadcast.as_ref().map(|(broadcast, slot)| broadcast.at(*slot))
    }

    /// Leaves the broadcast. Returns the position there, if the stream was a member.
    pub(super) fn leave_broadcast(&mut self) -> Option<MemberPosition> {
        let (broadcast, slot) = self.broadcast.take()?;
        let (io, at) = broadcast.leave(slot)?;
        self.io = Some(io);
        Some(at)
    }

    /// Ends the response.
    pub(super) fn write_last_chunk(&mut self) {
        self.state = State::Last;
        let head = self.rest.take().unwrap_or_default();
        self.keep([&head[..], &self.framing.end()].concat().into());
    }

    /// Has the next flush write the head without a chunk. Returns false if the head was written.
    pub(super) fn begin(&mut self) -> bool {
        let is_new = self.state == State::New;
        if is_new {
            self.state = State::Open;
        }
        is_new
    }

    fn fail(&mut self, err: &io::Error) -> bool {
        let timed_out = err.kind() == io::ErrorKind::TimedOut;
        self.state = if timed_out { State::Stalled } else { State::Broken };
        false
    }

    fn keep(&mut self, rest: Bytes) -> bool {
        let is_whole = rest.is_empty();
        self.rest = (!is_whole).then(|| Box::new(rest));
        is_whole
    }

    /// Writes the rest of the last chunk. Returns true if a chunk can be written.
    ///
    /// # Errors
    /// Fails when the connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if matches!(self.state, State::Broken | State::Stalled) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if self.state == State::New {
            return Ok(true);
        }
        while let (Some(io), Some(rest)) = (&self.io, &mut self.rest) {
            let taken = match send_rest(io, rest) {
                Ok(taken) => taken,
                Err(err) => {
                    self.fail(&err);
                    return Err(err);
                }
            };
            if taken == 0 {
                return Ok(false);
            }
            self.progress = true;
            let _taken = rest.split_to(taken);
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Ok(true)
    }

    /// Returns true for a connection in both directions, whose format has frames of its own.
    pub(super) fn is_duplex(&self) -> bool {
        self.framing == Framing::OfFormat
    }

    /// Returns true if the response has ended and the socket took all of it.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Last && self.rest.is_none()
    }

    /// Makes the task of the reactor drive the stream.
    pub(super) fn schedule(&self) {
        if let Some(by) = self.by.upgrade() {
            by.schedule(self.key);
        }
    }

    /// Returns true if the stream ended because its reader took nothing.
    pub(super) fn is_stalled(&self) -> bool {
        self.state == State::Stalled
    }

    pub(super) fn has_timed_out(&self) -> bool {
        let error = self.io.as_ref().and_then(|io| io.take_error().ok().flatten());
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    pub(super) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.progress)
    }

    pub(super) fn take(&mut self) -> Option<TcpStream> {
        self.io.take()
    }

    /// Takes the bytes that the socket did not take.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.rest.take().map(|rest| *rest).unwrap_or_default()
    }
}
