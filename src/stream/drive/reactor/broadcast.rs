//! Broadcast to sockets: streams of a group at the same cursor are written in one pass, with one
//! read and one `send` for each socket.
//!
//! The kernel's work to send to a socket fills the processor's caches and evicts the memory of
//! streams from them. A pass therefore uses only the number of each member's socket, and no other
//! memory of the stream. A stream that has other work leaves the broadcast first.

use std::{
    cell::RefCell,
    fmt, io,
    net::TcpStream,
    rc::{Rc, Weak},
    sync::Arc,
};

use actix_web::web;
use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use crate::stream::{
    drive::reactor::{Reactor, framing::Framing},
    session::MemberPosition,
};
use crate::{
    hub::{Batch, Broadcast, Group, Read, ReadEvents, Reader, SampledEvent, Subscriber},
    model::event_id::EventId,
    net::http1::chunk::send_rest,
    stream::{Newest, StreamContext},
};

/// Broadcast of one group to the sockets of its members.
pub(crate) struct SocketBroadcast {
    reactor: Weak<Reactor>,
    context: web::Data<StreamContext>,
    reader: Reader,
    state: RefCell<State>,
}

struct State {
    members: Slab<Member>,
    /// Position of the members after the current pass.
    at: MemberPosition,
    pass: Option<Pass>,
}

struct Member {
    io: TcpStream,
    /// Key of the stream in the reactor.
    key: u32,
}

/// Pass over all members.
struct Pass {
    /// Events of the pass. `None` if all members must leave.
    block: Option<Batch>,
    /// Events of the pass as they are sent.
    chunk: Bytes,
    /// Slot of the first member that was not written to yet.
    next: usize,
    /// Position of the members that were not written to yet.
    before: MemberPosition,
}

/// Result of a part of a pass.
struct Delivered {
    to: usize,
    events: u64,
    /// `None` if nothing was written.
    newest: Option<Newest>,
    /// Events in traces that their publishers record.
    sampled: Option<Arc<[SampledEvent]>>,
}

/// Stream that has left the broadcast, and the part of the chunk that its socket did not take.
type Departed = (u32, io::Result<Bytes>);

/// Smallest group with a broadcast.
const BROADCAST_MIN: usize = 16;

impl fmt::Debug for SocketBroadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketBroadcast").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Reactor {
    pub(super) fn broadcast(&self, group: &Group) -> Option<Rc<SocketBroadcast>> {
        self.broadcasts.borrow().get(&group.number())?.upgrade()
    }

    /// Returns the broadcast that a subscriber's stream may join, and creates it if the group is
    /// large enough.
    pub(super) fn broadcast_of(
        self: &Rc<Self>,
        subscriber: &Subscriber,
        context: &web::Data<StreamContext>,
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
            events: 0,
            written_at: Instant::now(),
        };
        let broadcast = Rc::new(SocketBroadcast {
            reactor: Rc::downgrade(self),
            context: context.clone(),
            reader: reader.clone(),
            state: RefCell::new(State { members: Slab::new(), at, pass: None }),
        });
        let weak: Weak<SocketBroadcast> = Rc::downgrade(&broadcast);
        self.broadcasts.borrow_mut().insert(group.number(), Weak::<SocketBroadcast>::clone(&weak));
        group.set_broadcast(weak);
        if subscriber.has_more() {
            // The group was notified before it had a broadcast.
            reader.reschedule();
        }
        Some(broadcast)
    }
}

impl SocketBroadcast {
    /// Returns the cursor of the members.
    pub(super) fn after(&self) -> EventId {
        self.state.borrow().at.position.after()
    }

    /// Adds the stream `key` if its next events are those of the members. Its reader was sent
    /// everything up to `last_sent_id`. Returns its slot.
    ///
    /// # Errors
    /// Returns the socket if the stream is not at the position of the members.
    pub(super) fn join(
        &self,
        io: TcpStream,
        key: u32,
        subscriber: &Subscriber,
        last_sent_id: EventId,
    ) -> Result<u32, TcpStream> {
        let mut state = self.state.borrow_mut();
        let slot = u32::try_from(state.members.vacant_key());
        debug_assert!(state.pass.is_none(), "no stream joins during a pass");
        let fits = subscriber.is_with(&state.at.position, last_sent_id) && state.pass.is_none();
        match slot {
            Ok(slot) if fits => {
                state.members.insert(Member { io, key });
                Ok(slot)
            }
            _ => Err(io),
        }
    }

    /// Removes a member. Returns its socket and its position.
    pub(super) fn leave(&self, slot: u32) -> Option<(TcpStream, MemberPosition)> {
        let at = self.at(slot);
        let members = self.state.borrow_mut().members.try_remove(slot as usize)?;
        Some((members.io, at))
    }

    /// Returns the position of a member.
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
        // The streams take their sockets out of the broadcast.
        for (key, rest) in departed {
            reactor.leave_broadcast(key, rest);
        }
        if let Some(Delivered { to, events, newest, sampled }) = &given {
            self.context.record_delivered(*to, *events, *newest);
            self.context.traces.deliver(sampled.as_deref().unwrap_or_default());
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
    /// Writes to at most `most` members. A pass sends all members the events that were read at its
    /// beginning, and no others until the group is notified again.
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
            let newest = block
                .map(|block| Newest { id: block.newest, publish_time_ms: block.publish_time_ms });
            let sampled = block.and_then(|block| block.sampled.clone());
            let events = block.map_or(0, |block| block.events);
            return Some(Delivered { to, events, newest, sampled });
        }
        self.pass = None;
        None
    }

    /// Begins a pass. Returns `None` if there is nothing to read.
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
            // Each member leaves, and handles the gap, the large event or the drain by itself, from
            // its position.
            Some(Some(_)) | None => {
                return Some(Pass { block: None, chunk: Bytes::new(), next: 0, before: self.at });
            }
        };
        if !position.is_complete_as_of(version) {
            // The read stopped before the head, or it was another subscriber's read from before the
            // last notification.
            reader.reschedule();
        }
        let before = self.at;
        self.at.position = position;
        let block = block?;
        (self.at.last_sent_id, self.at.written_at) = (block.newest, Instant::now());
        let events = u32::try_from(block.events).unwrap_or(u32::MAX);
        self.at.events = self.at.events.wrapping_add(events);
        let chunk = Framing::of(reader.group().format()).whole(&block.bytes);
        Some(Pass { chunk, block: Some(block), next: 0, before })
    }
}

impl Pass {
    /// Writes to more members. Returns `None` if all were written to.
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

    /// Writes to one member. Returns the bytes that its socket did not take, if the stream must
    /// leave.
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
