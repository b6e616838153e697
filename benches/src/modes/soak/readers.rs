//! The readers: each opens again when its stream is cut or ends, as `EventSource` does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    os::fd::OwnedFd,
};

use rustix::event::epoll::EventFlags;

use super::{
    blocks::{Block, Blocks},
    check::Check,
};
use crate::{
    Result,
    clock::now_ns,
    dialect::{Dialect, Target},
    http::Response,
    socket::{self, Poll},
    tally::Shape,
};

/// What a reader does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Open,
    ReadOn,
    Close,
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) socket: Option<OwnedFd>,
    response: Response,
    blocks: Blocks,
    /// Sent when it opens again.
    pub(super) id: Vec<u8>,
    pub(super) retry_ms: u64,
    /// Counts openings and closings: what was planned before the last of them is void.
    turn: u32,
    pub(super) is_stalled: bool,
    pub(super) was_stalled: bool,
    pub(super) is_half_closed: bool,
    /// The reason of its `stream-end`.
    end: Option<String>,
}

pub struct Readers {
    target: Target,
    shape: Shape,
    pub(super) all: Vec<Reader>,
    pub(super) plan: BinaryHeap<Reverse<(u64, usize, u32, Act)>>,
    /// Connections whose response has not begun.
    opening: usize,
    pub reconnects: BTreeMap<String, u64>,
    pub stalls: u64,
}

/// As many as any server's backlog holds.
const OPENING_MAX: usize = 256;
const LATER_NS: u64 = 20_000_000;
/// Where the server names none.
const RETRY_MS: u64 = 1_000;

impl Readers {
    /// They will open at once.
    pub fn new(target: Target, shape: Shape) -> Self {
        let reader = || Reader { retry_ms: RETRY_MS, ..Reader::default() };
        Self {
            target,
            shape,
            all: (0..shape.streams).map(|_| reader()).collect(),
            plan: (0..shape.streams).map(|number| Reverse((0, number, 0, Act::Open))).collect(),
            opening: 0,
            reconnects: BTreeMap::new(),
            stalls: 0,
        }
    }

    /// Every stream is there, and from now on nothing may be missing.
    pub fn are_open(&self) -> bool {
        // The gateway's first block has one.
        let has_ids = self.target.dialect == Dialect::Gateway;
        let is_open = |reader: &Reader| {
            reader.socket.is_some()
                && reader.response.is_open()
                && (!has_ids || !reader.id.is_empty())
        };
        self.all.iter().all(is_open)
    }

    pub(super) fn plan(&mut self, number: usize, at_ns: u64, act: Act) {
        self.plan.push(Reverse((at_ns, number, self.all[number].turn, act)));
    }

    /// Does what is due.
    pub fn act(&mut self, check: &mut Check, poll: &Poll) -> Result<()> {
        let now_ns = now_ns();
        while let Some(Reverse((at_ns, number, turn, act))) = self.plan.peek().copied()
            && at_ns <= now_ns
        {
            self.plan.pop();
            let is_void = turn != self.all[number].turn;
            match act {
                _ if is_void => {}
                Act::Open if OPENING_MAX <= self.opening => {
                    self.plan(number, now_ns + LATER_NS, Act::Open);
                }
                Act::Open => self.open(number, check, poll)?,
                Act::ReadOn => self.read_on(number, poll)?,
                Act::Close => self.lose(number, "half-closed", 0),
            }
        }
        Ok(())
    }

    fn open(&mut self, number: usize, check: &mut Check, poll: &Poll) -> Result<()> {
        let reader = &mut self.all[number];
        let id = (!reader.id.is_empty()).then_some(reader.id.as_slice());
        if id.is_none() && 0 < reader.turn {
            check.forget(number);
        }
        let request = self.target.get(self.shape.topics_of(number), id);
        let socket = socket::dial(self.target.address, number)?;
        socket::write_all(&socket, &request)?;
        poll.add(&socket, number as u64, EventFlags::IN)?;
        let (id, retry_ms) = (std::mem::take(&mut reader.id), reader.retry_ms);
        let turn = reader.turn + 1;
        *reader = Reader { socket: Some(socket), id, retry_ms, turn, ..Reader::default() };
        self.opening += 1;
        Ok(())
    }

    /// A stream is over. It opens again after the server's `retry` and some more.
    pub(super) fn lose(&mut self, number: usize, cause: &str, away_ns: u64) {
        let reader = &mut self.all[number];
        if reader.socket.take().is_none() {
            return;
        }
        self.opening -= usize::from(!reader.response.is_open());
        reader.turn += 1;
        let at_ns = now_ns() + reader.retry_ms * 1_000_000 + away_ns;
        *self.reconnects.entry(cause.to_owned()).or_default() += 1;
        self.plan(number, at_ns, Act::Open);
    }

    pub fn read(&mut self, number: usize, check: &mut Check, buffer: &mut [u8]) {
        let reader = &mut self.all[number];
        let Some(socket) = &reader.socket else { return };
        let (length, how) = match socket::read(socket, buffer) {
            Ok(None) => return,
            Ok(Some(length)) => (length, "ended"),
            Err(_) => (0, "reset by the server"),
        };
        let was_open = reader.response.is_open();
        let Reader { response, blocks, id, retry_ms, end, .. } = reader;
        let fed = response.feed(&buffer[..length], &mut |body| {
            blocks.feed(body, &mut |block| {
                check.block(number, block);
                if let Some(new) = block.id {
                    new.clone_into(id);
                }
                *retry_ms = block.retry_ms.unwrap_or(*retry_ms);
                if block.event == b"stream-end" {
                    *end = Some(reason(block));
                }
            });
        });
        self.opening -= usize::from(!was_open && response.is_open());
        // EventSource would give up for good.
        if response.is_open() && response.status != 200 {
            check.violation(format!("stream {number} was answered {}", response.status));
        }
        if let Err(err) = &fed {
            check.violation(format!("stream {number}: {err}"));
        }
        if 0 < length && fed.is_ok() && !response.is_done() {
            return;
        }
        let cause = match reader {
            Reader { end: Some(reason), .. } => format!("end: {reason}"),
            Reader { is_half_closed: true, .. } => format!("{how} after a half-close"),
            Reader { was_stalled: true, .. } => format!("{how} after a stall"),
            _ => format!("{how} without a stall"),
        };
        self.lose(number, &cause, 0);
    }
}

fn reason(block: &Block<'_>) -> String {
    let data = serde_json::from_slice::<serde_json::Value>(block.data.unwrap_or_default());
    data.ok().and_then(|data| Some(data["reason"].as_str()?.to_owned())).unwrap_or_default()
}
