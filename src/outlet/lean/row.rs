//! The sockets of those streams of a group that have all been given the same. Most of what it costs
//! to give one event to one stream is memory that has to come to the processor, and the kernel's
//! own for each socket leaves no room in its caches: so of a stream in the row nothing is touched
//! but the number of its socket. Whatever else there is to do with it, it comes out first.

use std::{
    cell::RefCell,
    fmt, io, mem,
    net::TcpStream,
    rc::{Rc, Weak},
};

use actix_web::web;
use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use super::Lean;
use crate::{
    connection::chunk::{send_rest, whole_chunk},
    event::EventId,
    hub::{Block, Cohort, Events, Group, Position, Read, Reader, Subscriber},
    outlet::Outlet,
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
    block: Block,
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
        let group = subscriber.reader().group();
        if group.subscribers() < ROW_MIN {
            return None;
        }
        if let Some(row) = self.row(group) {
            return Some(row);
        }
        let at =
            At { position: subscriber.position(), told: EventId::ZERO, written: Instant::now() };
        let row = Rc::new(Row {
            lean: Rc::downgrade(self),
            outlet: outlet.clone(),
            reader: subscriber.reader().clone(),
            state: RefCell::new(State { standing: Slab::new(), at, under_way: None }),
        });
        let weak: Weak<Row> = Rc::downgrade(&row);
        self.rows.borrow_mut().insert(group.number(), Weak::<Row>::clone(&weak));
        group.set_cohort(weak);
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
        let mut state = self.state.borrow_mut();
        let place = place as usize;
        let standing = state.standing.try_remove(place)?;
        let before = state.under_way.as_ref().filter(|it| it.next <= place).map(|it| it.before);
        Some((standing.io, before.unwrap_or(state.at)))
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
            self.under_way = self.begin(reader, out);
        }
        if let Some(it) = &mut self.under_way
            && let Some(to) = it.go_on(&self.standing, most, out)
        {
            let Block { events, publish_time_ms, .. } = it.block;
            return Some(Given { to, events, publish_time_ms });
        }
        self.under_way = None;
        None
    }

    /// Reads on. None if there is nothing to give to all. What each of them has to see to itself
    /// has all of them step out, from where they stand.
    fn begin(&mut self, reader: &Reader, out: &mut Vec<SteppedOut>) -> Option<UnderWay> {
        let mut position = self.at.position;
        let is_draining = reader.hub().draining().is_some();
        let read = (!is_draining).then(|| reader.read(&mut position));
        // Others come first; and what was read may have been read before the group was rung for.
        if !reader.has_all(&position) {
            reader.ring_again();
        }
        match read {
            Some(None) => {
                self.at.position = position;
                None
            }
            Some(Some(Read { gap: None, events: Some(Events::Block(block)), .. })) => {
                let at = At { position, told: block.newest, written: Instant::now() };
                let before = mem::replace(&mut self.at, at);
                Some(UnderWay { chunk: whole_chunk(&block.bytes), block, next: 0, before })
            }
            Some(Some(_)) | None => {
                out.extend(self.standing.iter().map(|(_, it)| (it.key, Ok(Bytes::new()))));
                None
            }
        }
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
                match send_rest(io, &self.chunk) {
                    Ok(all) if all == self.chunk.len() => {}
                    Ok(some) => out.push((*key, Ok(self.chunk.slice(some..)))),
                    Err(err) => out.push((*key, Err(err))),
                }
            }
            self.next += 1;
        }
        Some(given)
    }
}
