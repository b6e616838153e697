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

use crate::stream::reactor::Lean;
use crate::{
    hub::{Block, Cohort, Events, Group, Position, Read, Reader, Subscriber},
    model::event::EventId,
    net::connection::chunk::{send_rest, whole_chunk},
    stream::Outlet,
};

/// The row of a group.
pub struct Row {
    lean: Weak<Lean>,
    outlet: web::Data<Outlet>,
    reader: Reader,
    state: RefCell<State>,
}

struct State {
    standing: Slab<Standing>,
    /// Where those are who have been given all that is under way.
    at: At,
    under_way: Option<UnderWay>,
}

struct Standing {
    io: TcpStream,
    /// Whose it is.
    key: u32,
}

/// How far those in a row are.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub position: Position,
    /// The last event that was given to them as they stood there, or an id before all others.
    pub told: EventId,
    /// When it was.
    pub written: Instant,
}

/// What is being given to all, one after the other.
struct UnderWay {
    /// None if they are to step out.
    block: Option<Block>,
    /// It, as it goes out.
    chunk: Bytes,
    /// The first who has not been given it.
    next: usize,
    /// Where those are who have not been given it.
    before: At,
}

/// What was given, and to how many.
struct Given {
    to: usize,
    events: u64,
    publish_time_ms: Option<u64>,
}

/// Whose stream goes on by itself, and what of the chunk its socket did not take.
type SteppedOut = (u32, io::Result<Bytes>);

/// In a smaller group everyone stands for themselves.
const ROW_MIN: usize = 16;

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Lean {
    pub(super) fn row(&self, group: &Group) -> Option<Rc<Row>> {
        self.rows.borrow().get(&group.number())?.upgrade()
    }

    /// The row where a subscriber's stream would stand, if there is to be one.
    pub(super) fn row_of(
        self: &Rc<Self>,
        subscriber: &Subscriber,
        outlet: &web::Data<Outlet>,
    ) -> Option<Rc<Row>> {
        let reader = subscriber.reader();
        let group = reader.group();
        if let Some(row) = self.row(group) {
            return Some(row);
        }
        if group.subscribers() < ROW_MIN {
            return None;
        }
        let at =
            At { position: subscriber.position(), told: EventId::ZERO, written: Instant::now() };
        let row = Rc::new(Row {
            lean: Rc::downgrade(self),
            outlet: outlet.clone(),
            reader: reader.clone(),
            state: RefCell::new(State { standing: Slab::new(), at, under_way: None }),
        });
        let weak: Weak<Row> = Rc::downgrade(&row);
        self.rows.borrow_mut().insert(group.number(), Weak::<Row>::clone(&weak));
        group.set_cohort(weak);
        if subscriber.has_more() {
            // The group was rung for before it had a row.
            reader.ring_again();
        }
        Some(row)
    }
}

impl Row {
    /// Everything up to here was given to those who stand there.
    pub(super) fn after(&self) -> EventId {
        self.state.borrow().at.position.after()
    }

    /// Lets a stream stand there whose reader was `told` events up to an id, if what comes next is
    /// the same for it. Returns its place.
    ///
    /// # Errors
    /// With its socket, if it is not.
    pub(super) fn let_in(
        &self,
        io: TcpStream,
        key: u32,
        subscriber: &Subscriber,
        told: EventId,
    ) -> Result<u32, TcpStream> {
        let mut state = self.state.borrow_mut();
        let place = u32::try_from(state.standing.vacant_key());
        debug_assert!(state.under_way.is_none(), "nobody joins while something is given");
        let fits = subscriber.is_with(&state.at.position, told) && state.under_way.is_none();
        match place {
            Ok(place) if fits => {
                state.standing.insert(Standing { io, key });
                Ok(place)
            }
            _ => Err(io),
        }
    }

    /// Lets one out, with where it is.
    pub(super) fn let_out(&self, place: u32) -> Option<(TcpStream, At)> {
        let at = self.at(place);
        let standing = self.state.borrow_mut().standing.try_remove(place as usize)?;
        Some((standing.io, at))
    }

    /// Where the one at a place is.
    pub(super) fn at(&self, place: u32) -> At {
        let state = self.state.borrow();
        let place = place as usize;
        let before = state.under_way.as_ref().filter(|it| it.next <= place).map(|it| it.before);
        before.unwrap_or(state.at)
    }
}

impl Cohort for Row {
    fn give(&self, most: usize) -> Option<usize> {
        let lean = self.lean.upgrade()?;
        let mut stepped_out = Vec::new();
        let given = self.state.borrow_mut().give(&self.reader, most, &mut stepped_out);
        // They look into the row for their sockets.
        for (key, left) in stepped_out {
            lean.steps_out(key, left);
        }
        if let Some(Given { to, events, publish_time_ms }) = &given {
            self.outlet.given(*to, *events, *publish_time_ms);
        }
        given.map(|given| given.to)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if let Some(lean) = self.lean.upgrade() {
            lean.rows.borrow_mut().remove(&self.reader.group().number());
        }
    }
}

impl State {
    /// One pass: what is read at its beginning is given to all, and then nothing more until the
    /// group is rung for again.
    fn give(&mut self, reader: &Reader, most: usize, out: &mut Vec<SteppedOut>) -> Option<Given> {
        if self.under_way.is_none() {
            self.under_way = self.begin(reader);
        }
        if let Some(it) = &mut self.under_way
            && let Some(to) = it.go_on(&self.standing, most, out)
        {
            let block = it.block.as_ref();
            let publish_time_ms = block.and_then(|block| block.publish_time_ms);
            return Some(Given {
                to,
                events: block.map_or(0, |block| block.events),
                publish_time_ms,
            });
        }
        self.under_way = None;
        None
    }

    /// Reads on. None if there is nothing to give.
    fn begin(&mut self, reader: &Reader) -> Option<UnderWay> {
        let version = reader.version();
        let mut position = self.at.position;
        let is_draining = reader.hub().draining().is_some();
        let read = (!is_draining).then(|| reader.read(&mut position));
        let block = match read {
            Some(None) => None,
            Some(Some(Read { gap: None, events: Some(Events::Block(block)), .. })) => Some(block),
            // A gap, a large event and the end are each one's own to see to, from where it is.
            Some(Some(_)) | None => {
                return Some(UnderWay {
                    block: None,
                    chunk: Bytes::new(),
                    next: 0,
                    before: self.at,
                });
            }
        };
        if !position.is_complete_as_of(version) {
            // It stopped short of the head; or another had read this, before the last of what has
            // rung was there.
            reader.ring_again();
        }
        let before = self.at;
        self.at.position = position;
        let block = block?;
        (self.at.told, self.at.written) = (block.newest, Instant::now());
        Some(UnderWay { chunk: whole_chunk(&block.bytes), block: Some(block), next: 0, before })
    }
}

impl UnderWay {
    /// Gives it to some more, if not all have it.
    fn go_on(
        &mut self,
        standing: &Slab<Standing>,
        most: usize,
        out: &mut Vec<SteppedOut>,
    ) -> Option<usize> {
        if standing.capacity() <= self.next {
            return None;
        }
        let mut given = 0;
        while given < most && self.next < standing.capacity() {
            if let Some(Standing { io, key }) = standing.get(self.next) {
                given += 1;
                if let Some(left) = self.left(io) {
                    out.push((*key, left));
                }
            }
            self.next += 1;
        }
        Some(given)
    }

    /// Gives it to one. Returns what is left for its stream, if it has to step out.
    fn left(&self, io: &TcpStream) -> Option<io::Result<Bytes>> {
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
