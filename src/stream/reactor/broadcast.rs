//! The sockets of those streams of a group that have all been given the same. What the kernel
//! touches to send to each fills the processor's caches, and what we touch of a stream pushes that
//! out: so of one in the row it is the number of its socket, and nothing else. Whatever else there
//! is to do with a stream, it steps out of the row first.

use std::{
    cell::RefCell,
    fmt, io,
    net::TcpStream,
    rc::{Rc, Weak},
};

use actix_web::web;
use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use crate::stream::reactor::Reactor;
use crate::{
    hub::{Batch, Broadcast, Group, Position, Read, ReadEvents, Reader, Subscriber},
    model::event::EventId,
    net::connection::chunk::{send_rest, whole_chunk},
    stream::Outlet,
};

/// The row of a group.
pub struct SocketBroadcast {
    reactor: Weak<Reactor>,
    outlet: web::Data<Outlet>,
    reader: Reader,
    state: RefCell<State>,
}

struct State {
    members: Slab<Member>,
    /// Where those are who have been given all that is under way.
    at: MemberPosition,
    pass: Option<Pass>,
}

struct Member {
    io: TcpStream,
    /// Whose it is.
    key: u32,
}

/// How far those in a row are.
#[derive(Debug, Clone, Copy)]
pub struct MemberPosition {
    pub position: Position,
    /// The last event that was given to them as they stood there, or an id before all others.
    pub last_sent_id: EventId,
    /// When it was.
    pub written: Instant,
}

/// What is being given to all, one after the other.
struct Pass {
    /// None if they are to step out.
    block: Option<Batch>,
    /// It, as it goes out.
    chunk: Bytes,
    /// The first who has not been given it.
    next: usize,
    /// Where those are who have not been given it.
    before: MemberPosition,
}

/// What was given, and to how many.
struct Delivered {
    to: usize,
    events: u64,
    publish_time_ms: Option<u64>,
}

/// Whose stream goes on by itself, and what of the chunk its socket did not take.
type Departed = (u32, io::Result<Bytes>);

/// In a smaller group everyone stands for themselves.
const BROADCAST_MIN: usize = 16;

impl fmt::Debug for SocketBroadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Reactor {
    pub(super) fn broadcast(&self, group: &Group) -> Option<Rc<SocketBroadcast>> {
        self.broadcasts.borrow().get(&group.number())?.upgrade()
    }

    /// The row where a subscriber's stream would stand, if there is to be one.
    pub(super) fn broadcast_of(
        self: &Rc<Self>,
        subscriber: &Subscriber,
        outlet: &web::Data<Outlet>,
    ) -> Option<Rc<SocketBroadcast>> {
        let reader = subscriber.reader();
        let group = reader.group();
        if let Some(broadcast) = self.broadcast(group) {
            return Some(broadcast);
        }
        if group.subscribers() < BROADCAST_MIN {
            return None;
        }
        let at = MemberPosition {
            position: subscriber.position(),
            last_sent_id: EventId::ZERO,
            written: Instant::now(),
        };
        let broadcast = Rc::new(SocketBroadcast {
            reactor: Rc::downgrade(self),
            outlet: outlet.clone(),
            reader: reader.clone(),
            state: RefCell::new(State { members: Slab::new(), at, pass: None }),
        });
        let weak: Weak<SocketBroadcast> = Rc::downgrade(&broadcast);
        self.broadcasts.borrow_mut().insert(group.number(), Weak::<SocketBroadcast>::clone(&weak));
        group.set_broadcast(weak);
        if subscriber.has_more() {
            // The group was rung for before it had a row.
            reader.reschedule();
        }
        Some(broadcast)
    }
}

impl SocketBroadcast {
    /// Everything up to here was given to those who stand there.
    pub(super) fn after(&self) -> EventId {
        self.state.borrow().at.position.after()
    }

    /// Lets a stream stand there whose reader was `last_sent_id` events up to an id, if what comes next is
    /// the same for it. Returns its place.
    ///
    /// # Errors
    /// With its socket, if it is not.
    pub(super) fn join(
        &self,
        io: TcpStream,
        key: u32,
        subscriber: &Subscriber,
        last_sent_id: EventId,
    ) -> Result<u32, TcpStream> {
        let mut state = self.state.borrow_mut();
        let slot = u32::try_from(state.members.vacant_key());
        debug_assert!(state.pass.is_none(), "nobody joins while something is given");
        let fits = subscriber.is_with(&state.at.position, last_sent_id) && state.pass.is_none();
        match slot {
            Ok(slot) if fits => {
                state.members.insert(Member { io, key });
                Ok(slot)
            }
            _ => Err(io),
        }
    }

    /// Lets one out, with where it is.
    pub(super) fn leave(&self, slot: u32) -> Option<(TcpStream, MemberPosition)> {
        let at = self.at(slot);
        let members = self.state.borrow_mut().members.try_remove(slot as usize)?;
        Some((members.io, at))
    }

    /// Where the one at a place is.
    pub(super) fn at(&self, slot: u32) -> MemberPosition {
        let state = self.state.borrow();
        let slot = slot as usize;
        let before = state.pass.as_ref().filter(|it| it.next <= slot).map(|it| it.before);
        before.unwrap_or(state.at)
    }
}

impl Broadcast for SocketBroadcast {
    fn write_pass(&self, most: usize) -> Option<usize> {
        let reactor = self.reactor.upgrade()?;
        let mut departed = Vec::new();
        let given = self.state.borrow_mut().write_pass(&self.reader, most, &mut departed);
        // They look into the row for their sockets.
        for (key, rest) in departed {
            reactor.leave_broadcast(key, rest);
        }
        if let Some(Delivered { to, events, publish_time_ms }) = &given {
            self.outlet.record_delivered(*to, *events, *publish_time_ms);
        }
        given.map(|given| given.to)
    }
}

impl Drop for SocketBroadcast {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.upgrade() {
            reactor.broadcasts.borrow_mut().remove(&self.reader.group().number());
        }
    }
}

impl State {
    /// One pass: what is read at its beginning is given to all, and then nothing more until the
    /// group is rung for again.
    fn write_pass(
        &mut self,
        reader: &Reader,
        most: usize,
        out: &mut Vec<Departed>,
    ) -> Option<Delivered> {
        if self.pass.is_none() {
            self.pass = self.begin(reader);
        }
        if let Some(it) = &mut self.pass
            && let Some(to) = it.write_next(&self.members, most, out)
        {
            let block = it.block.as_ref();
            let publish_time_ms = block.and_then(|block| block.publish_time_ms);
            return Some(Delivered {
                to,
                events: block.map_or(0, |block| block.events),
                publish_time_ms,
            });
        }
        self.pass = None;
        None
    }

    /// Reads on. None if there is nothing to give.
    fn begin(&mut self, reader: &Reader) -> Option<Pass> {
        let version = reader.version();
        let mut position = self.at.position;
        let is_draining = reader.hub().draining().is_some();
        let read = (!is_draining).then(|| reader.read(&mut position));
        let block = match read {
            Some(None) => None,
            Some(Some(Read { gap: None, events: Some(ReadEvents::Batch(block)), .. })) => {
                Some(block)
            }
            // A gap, a large event and the end are each one's own to see to, from where it is.
            Some(Some(_)) | None => {
                return Some(Pass { block: None, chunk: Bytes::new(), next: 0, before: self.at });
            }
        };
        if !position.is_complete_as_of(version) {
            // It stopped short of the head; or another had read this, before the last of what has
            // rung was there.
            reader.reschedule();
        }
        let before = self.at;
        self.at.position = position;
        let block = block?;
        (self.at.last_sent_id, self.at.written) = (block.newest, Instant::now());
        Some(Pass { chunk: whole_chunk(&block.bytes), block: Some(block), next: 0, before })
    }
}

impl Pass {
    /// Gives it to some more, if not all have it.
    fn write_next(
        &mut self,
        members: &Slab<Member>,
        most: usize,
        out: &mut Vec<Departed>,
    ) -> Option<usize> {
        if members.capacity() <= self.next {
            return None;
        }
        let mut given = 0;
        while given < most && self.next < members.capacity() {
            if let Some(Member { io, key }) = members.get(self.next) {
                given += 1;
                if let Some(rest) = self.rest(io) {
                    out.push((*key, rest));
                }
            }
            self.next += 1;
        }
        Some(given)
    }

    /// Gives it to one. Returns what is left for its stream, if it has to step out.
    fn rest(&self, io: &TcpStream) -> Option<io::Result<Bytes>> {
        if self.block.is_none() {
            return Some(Ok(Bytes::new()));
        }
        match send_rest(io, &self.chunk) {
            Ok(all) if all == self.chunk.len() => None,
            Ok(some) => Some(Ok(self.chunk.slice(some..))),
            Err(err) => Some(Err(err)),
        }
    }
}
