//! The socket of a stream that writes itself.

use std::{
    io, mem,
    net::TcpStream,
    rc::{Rc, Weak},
    task::Waker,
};

use actix_web::web;
use bytes::Bytes;

use crate::stream::reactor::{
    Reactor,
    broadcast::{MemberPosition, SocketBroadcast},
};
use crate::{
    hub::Subscriber,
    model::event::EventId,
    net::connection::chunk::{LAST_CHUNK, send_chunk, send_rest},
    stream::Outlet,
};

/// The socket of a stream that writes itself.
#[derive(Debug)]
pub struct DirectSocket {
    /// None when it was taken, or stands in a row.
    io: Option<TcpStream>,
    broadcast: Option<(Rc<SocketBroadcast>, u32)>,
    /// What of the last chunk was not taken.
    rest: Option<Box<Bytes>>,
    by: Weak<Reactor>,
    key: u32,
    /// Whether anything was taken since this was last asked.
    progress: bool,
    state: State,
    /// Wakes the stream when its token is renewed.
    waker: Waker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The response has been ended.
    Last,
    /// The connection is gone.
    Broken,
    /// Its reader took nothing.
    Stalled,
}

impl DirectSocket {
    /// `head` goes out before all chunks.
    pub(super) fn new(
        io: TcpStream,
        head: Bytes,
        by: Weak<Reactor>,
        key: u32,
        waker: Waker,
    ) -> Self {
        Self {
            io: Some(io),
            broadcast: None,
            rest: Some(Box::new(head)),
            by,
            key,
            progress: false,
            state: State::Open,
            waker,
        }
    }

    /// Writes a chunk, when [`DirectSocket::flush`] has said that there is room. Returns whether it
    /// was taken whole.
    pub fn write_chunk(&mut self, chunk: &Bytes) -> bool {
        debug_assert!(self.rest.is_none(), "chunks do not overtake each other");
        if self.rest.is_some() {
            self.state = State::Broken;
            return false;
        }
        match self.io.as_ref().map(|io| send_chunk(io, chunk)) {
            Some(Ok(sent)) => {
                self.progress |= 0 < sent.bytes;
                self.keep(sent.rest)
            }
            Some(Err(err)) => self.fail(&err),
            None => false,
        }
    }

    /// What of a chunk, that was written for it, was not taken.
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

    /// Where the row of its group is.
    pub fn broadcast_cursor(&self, subscriber: &Subscriber) -> Option<EventId> {
        self.by.upgrade()?.broadcast(subscriber.reader().group()).map(|broadcast| broadcast.after())
    }

    /// Has what comes next written by the row of its group, if there is one where it can stand.
    /// Returns whether.
    pub fn join_broadcast(
        &mut self,
        subscriber: &Subscriber,
        last_sent_id: EventId,
        outlet: &web::Data<Outlet>,
    ) -> bool {
        let broadcast = self.by.upgrade().and_then(|by| by.broadcast_of(subscriber, outlet));
        let Some(broadcast) = broadcast else { return false };
        let Some(io) = self.io.take() else { return false };
        match broadcast.join(io, self.key, subscriber, last_sent_id) {
            Ok(slot) => self.broadcast = Some((broadcast, slot)),
            Err(io) => self.io = Some(io),
        }
        self.broadcast.is_some()
    }

    /// Where it is in its row, if it stands in one.
    pub fn broadcast_position(&self) -> Option<MemberPosition> {
        self.broadcast.as_ref().map(|(broadcast, slot)| broadcast.at(*slot))
    }

    /// Steps out of its row. Returns where that is, if it stood in one.
    pub fn leave_broadcast(&mut self) -> Option<MemberPosition> {
        let (broadcast, slot) = self.broadcast.take()?;
        let (io, at) = broadcast.leave(slot)?;
        self.io = Some(io);
        Some(at)
    }

    /// Ends the response.
    pub fn write_last_chunk(&mut self) {
        self.state = State::Last;
        self.keep(LAST_CHUNK);
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

    /// Writes what is left of the last chunk. Returns whether there is nothing left.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        if matches!(self.state, State::Broken | State::Stalled) {
            return Err(io::ErrorKind::NotConnected.into());
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

    /// Whether all of the response was written.
    pub fn is_finished(&self) -> bool {
        self.state == State::Last && self.rest.is_none()
    }

    /// Has the stream driven when its worker's task has its turn.
    pub fn schedule(&self) {
        if let Some(by) = self.by.upgrade() {
            by.schedule(self.key);
        }
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether it ended because its reader took nothing.
    pub fn is_stalled(&self) -> bool {
        self.state == State::Stalled
    }

    pub(super) fn has_timed_out(&self) -> bool {
        let error = self.io.as_ref().and_then(|io| io.take_error().ok().flatten());
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    pub(super) fn mark_stalled(&mut self) {
        self.state = State::Stalled;
    }

    pub(super) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.progress)
    }

    pub(super) fn take(&mut self) -> Option<TcpStream> {
        self.io.take()
    }
}
