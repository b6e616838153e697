//! The client: streams and publishers on one thread and one epoll.

use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::{
    Result,
    clock::now_ns,
    dialect::{Dialect, Target},
    payload::{Payload, SIZE_MIN},
    publisher::Publisher,
    socket::{self, Poll, Ready},
    sse::Seen,
    stream::Stream,
    tally::{Shape, Tally},
};

/// Everything of a run.
pub struct Client {
    pub target: Target,
    pub shape: Shape,
    pub size: usize,
    pub streams: Vec<Stream>,
    pub publishers: Vec<Publisher>,
    pub tally: Tally,
    poll: Poll,
    ready: Ready,
    buffer: Vec<u8>,
    /// Streams whose head has not come yet.
    opening: usize,
    /// Reads of streams that gave something.
    pub reads: u64,
    /// Answers to pushes.
    pub answers: u64,
}

/// Streams that are being opened at a time: fewer than any server's backlog.
const OPENING_MAX: usize = 256;
/// Without any progress for so long a run has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// And when something was lost already, it is no use to wait for it.
const PATIENCE_VIOLATED: Duration = Duration::from_secs(1);
const PUBLISHER: u64 = 1 << 32;
const BUFFER_BYTES: usize = 256 * 1024;

impl Client {
    /// A client with connected publishers and no stream yet. The last `unread` streams will not be
    /// read.
    pub fn new(
        target: Target,
        shape: Shape,
        size: usize,
        publishers: usize,
        unread: usize,
    ) -> Result<Self> {
        if size < SIZE_MIN {
            return Err(format!("--size is {SIZE_MIN} at least").into());
        }
        let poll = Poll::new()?;
        let new = |number| Publisher::new(number, shape.topics);
        let publishers: Vec<_> = (0..publishers).map(new).collect();
        Ok(Self {
            tally: Tally::new(shape, publishers.len(), unread),
            streams: (0..shape.streams).map(|_| Stream::default()).collect(),
            target,
            shape,
            size,
            publishers,
            poll,
            ready: Ready::default(),
            buffer: vec![0; BUFFER_BYTES],
            opening: 0,
            reads: 0,
            answers: 0,
        })
    }

    /// Opens streams, in bounded bursts, and waits for their heads and for the first block of those
    /// servers that begin with one.
    pub fn open(&mut self, streams: std::ops::Range<usize>, id: Option<&[u8]>) -> Result<()> {
        for number in streams.clone() {
            self.until(|client| client.opening < OPENING_MAX)?;
            self.start(number, id).map_err(|err| format!("stream {number}: {err}"))?;
            if number % 16 == 0 {
                self.turn(Some(Duration::ZERO))?;
            }
        }
        self.until(|client| client.opening == 0)?;
        if self.target.dialect == Dialect::Gateway {
            let mut next = streams.start;
            self.until(|client| {
                while next < streams.end && 0 < client.streams[next].blocks_seen {
                    next += 1;
                }
                next == streams.end
            })?;
        }
        Ok(())
    }

    fn start(&mut self, number: usize, id: Option<&[u8]>) -> Result<()> {
        let socket = socket::dial(self.target.address, number)?;
        let request = self.target.get(self.shape.topics_of(number), id);
        socket::write_all(&socket, &request)?;
        self.poll.add(&socket, number as u64, EventFlags::IN)?;
        let keeps_ids = self.streams[number].blocks.keeps_ids;
        let stream = Stream { socket: Some(socket), ..Stream::default() };
        self.streams[number] = stream;
        self.streams[number].blocks.keeps_ids = keeps_ids;
        self.opening += 1;
        Ok(())
    }

    /// Closes streams, as a reader does that goes away.
    pub fn close(&mut self, streams: std::ops::Range<usize>) {
        self.streams[streams].iter_mut().for_each(|stream| stream.socket = None);
    }

    /// From now on the stream is not read.
    pub fn write_timeout(&mut self, number: usize) -> Result<()> {
        let socket = self.streams[number].socket.as_ref().ok_or("it is closed")?;
        self.poll.remove(socket)
    }

    /// A publisher that can send. They take turns, so that no connection is idle for long.
    pub fn free_publisher(&self) -> Option<usize> {
        let (count, next) = (self.publishers.len(), self.tally.messages() as usize);
        let mut turns = (0..count).map(|at| (next + at) % count);
        turns.find(|number| !self.publishers[*number].is_busy)
    }

    /// Sends the next message to a topic.
    pub fn publish(&mut self, publisher: usize, topic: usize) -> Result<Payload> {
        let message = self.tally.messages();
        self.tally.published(topic);
        let connection = &mut self.publishers[publisher].socket;
        if connection.is_none() {
            let socket = socket::dial(self.target.address, publisher)?;
            self.poll.add(&socket, PUBLISHER | publisher as u64, EventFlags::IN)?;
            *connection = Some(socket);
        }
        self.publishers[publisher].send(&self.target, topic, message, self.size)
    }

    /// Every push was answered, and every event is there.
    pub fn is_settled(&self) -> bool {
        self.tally.unfinished == 0 && self.publishers.iter().all(|publisher| !publisher.is_busy)
    }

    /// Turns until it is so.
    pub fn until(&mut self, mut is_so: impl FnMut(&Self) -> bool) -> Result<()> {
        let mut patience = Patience::new();
        while !is_so(self) {
            self.turn(Some(Duration::from_millis(100)))?;
            patience.check(self)?;
        }
        Ok(())
    }

    /// Handles what is ready, once.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait(&mut ready, timeout)?;
        for (token, _) in ready.iter() {
            let number = (token & (PUBLISHER - 1)) as usize;
            if token & PUBLISHER == 0 {
                self.read_stream(number).map_err(|err| format!("stream {number}: {err}"))?;
            } else {
                self.read_publisher(number)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn read_publisher(&mut self, number: usize) -> Result<()> {
        let publisher = &mut self.publishers[number];
        let Some(socket) = &publisher.socket else { return Ok(()) };
        let Some(length) = socket::read(socket, &mut self.buffer)? else {
            return Ok(());
        };
        publisher.feed(&self.buffer[..length])?;
        self.answers += u64::from(!publisher.is_busy);
        Ok(())
    }

    fn read_stream(&mut self, number: usize) -> Result<()> {
        let stream = &mut self.streams[number];
        let Some(socket) = &stream.socket else { return Ok(()) };
        let Some(length) = socket::read(socket, &mut self.buffer)? else { return Ok(()) };
        if length == 0 {
            return Err("the server ended it".into());
        }
        let now_ns = now_ns();
        let was_open = stream.response.is_open();
        let (tally, size) = (&mut self.tally, self.size);
        stream.feed(&self.buffer[..length], size, |seen| match seen {
            Seen::Event(payload) => tally.delivered(number, &payload, now_ns),
            Seen::Nothing => {}
            Seen::Gap | Seen::End | Seen::Foreign => {
                tally.violation(format!("stream {number} got {seen:?}"));
            }
        })?;
        self.reads += u64::from(was_open);
        self.opening -= usize::from(!was_open && stream.response.is_open());
        Ok(())
    }
}

/// Gives up when nothing moves.
#[derive(Debug)]
pub struct Patience {
    moved: (u64, u64, u64, usize),
    at: Instant,
}

impl Patience {
    #[expect(clippy::new_without_default, reason = "it begins now, which is no default")]
    pub fn new() -> Self {
        Self { moved: (0, 0, 0, 0), at: Instant::now() }
    }

    pub fn check(&mut self, client: &Client) -> Result<()> {
        let moved = (client.reads, client.answers, client.tally.violations, client.opening);
        if moved != self.moved {
            *self = Self { moved, at: Instant::now() };
        }
        let violated = 0 < client.tally.violations;
        let patience = if violated { PATIENCE_VIOLATED } else { PATIENCE };
        if self.at.elapsed() < patience {
            return Ok(());
        }
        let named = client.tally.named.join("; ");
        Err(format!(
            "nothing came for {patience:?}: {} streams wait for their head, {} messages are not \
             everywhere, {} violations {named}",
            client.opening, client.tally.unfinished, client.tally.violations
        )
        .into())
    }
}
