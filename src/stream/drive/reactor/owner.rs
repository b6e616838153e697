//! Owners of connections, which continue with them. The owner of a connection that serves requests
//! gets it back when the stream has ended. A connection in both directions is given back whenever
//! its client sends bytes: the reactor reads nothing.

use std::{cell::RefCell, fmt, io, net::TcpStream, rc::Rc};

use bytes::Bytes;
use rustix::event::epoll;
use slab::Slab;

use crate::{
    net::{
        http1::Peer,
        limiter::ConnectionPermit,
        socket::{Socket, Transport},
    },
    stream::{
        drive::reactor::{Entry, Reactor, direct::DirectStream},
        session::Session,
    },
};

/// Owner of a connection, which continues with it.
#[derive(Debug)]
pub(super) enum Owner {
    /// Client of a connection that serves requests.
    Http(Peer),
    /// Receiver of a connection in both directions.
    Duplex(GiveBack),
}

/// Connection whose stream has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub io: TcpStream,
    /// Client of the connection, if it was kept: see
    /// [`TakenDirect::peer`](crate::net::http1::takeover::TakenDirect::peer).
    pub peer: Option<Box<Peer>>,
    pub permit: ConnectionPermit,
}

/// Function that receives a connection in both directions when there is something to do that the
/// reactor does not do: the client has sent bytes or closed its side, it has answered no
/// keep-alives, or the stream has ended.
pub(crate) struct GiveBack(pub(crate) Box<dyn FnOnce(Returned)>);

/// Connection that the reactor gives back.
#[derive(Debug)]
pub(crate) struct Returned {
    pub io: TcpStream,
    pub session: Session,
    /// Bytes of the stream that the socket did not take. They must be written before others.
    pub rest: Bytes,
    pub permit: ConnectionPermit,
}

impl fmt::Debug for GiveBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GiveBack").finish_non_exhaustive()
    }
}

impl Reactor {
    /// Returns the socket of a task that continues with a connection.
    ///
    /// # Errors
    /// Fails when the runtime cannot watch the socket.
    pub(crate) fn socket(&self, io: TcpStream) -> io::Result<Socket> {
        let io = Transport::Plain(tokio::net::TcpStream::from_std(io)?);
        Ok(Socket::new(io, &self.stalls))
    }

    /// Returns true if a stream is that of a connection in both directions.
    pub(super) fn is_duplex(&self, key: u32) -> bool {
        let streams = self.streams.borrow();
        let owner = streams.get(key as usize).and_then(|entry| entry.owner.as_deref());
        matches!(owner, Some(Owner::Duplex(_)))
    }

    /// Gives a connection in both directions back. Closes it if that fails.
    pub(super) fn give_back(&self, key: u32) {
        if let Err(err) = self.try_give_back(key) {
            tracing::debug!(error = %err, "a connection could not be given back");
        }
    }

    fn try_give_back(&self, key: u32) -> io::Result<()> {
        let gone = io::ErrorKind::NotConnected;
        let entry = self.take_entry(key).ok_or(gone)?;
        // The reactor alone holds a stream, except while it drives it.
        let stream = Rc::into_inner(entry.stream).map(RefCell::into_inner).ok_or(gone)?;
        let (session, io, rest) = DirectStream::into_parts(stream).ok_or(gone)?;
        epoll::delete(self.epoll.get_ref(), &io)?;
        entry.permit.end_stream();
        if let Some(Owner::Duplex(GiveBack(receiver))) = entry.owner.map(|owner| *owner) {
            receiver(Returned { io, session, rest, permit: entry.permit });
        }
        Ok(())
    }

    /// Removes a stream. Its socket is still watched.
    pub(super) fn remove(&self, key: u32) -> Option<Finished> {
        let entry = self.take_entry(key)?;
        let io = entry.stream.borrow_mut().socket().take()?;
        let peer = match entry.owner.map(|owner| *owner) {
            Some(Owner::Http(peer)) => Some(Box::new(peer)),
            _ => None,
        };
        Some(Finished { io, peer, permit: entry.permit })
    }

    fn take_entry(&self, key: u32) -> Option<Entry> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.try_remove(key as usize)?;
        if streams.is_empty() {
            // The memory of the slab is freed when it becomes empty.
            *streams = Slab::new();
        }
        drop(streams);
        self.blocked.borrow_mut().remove(&key);
        Some(entry)
    }
}
