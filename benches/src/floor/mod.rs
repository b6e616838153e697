//! The floor: one loop that accepts, takes pushes, and sends what they brought.

mod log;
mod request;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::{event::epoll::EventFlags, io::ioctl_fionbio, net::sockopt};

use crate::{
    Result,
    floor::{
        log::Log,
        request::{Request, parse},
    },
    socket::{Poll, Ready, raise_file_limit, read, write, write_all},
};

/// The whole server.
pub struct Floor {
    listener: OwnedFd,
    poll: Poll,
    /// By their number, which is their token.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    topics: Vec<Topic>,
    by_name: HashMap<String, usize>,
    /// Topics that got something in this turn.
    rung: Vec<usize>,
    buffer: Vec<u8>,
    drop_every: Option<u64>,
    pushes: u64,
}

#[derive(Default)]
struct Topic {
    log: Log,
    readers: Vec<usize>,
}

struct Connection {
    socket: OwnedFd,
    /// Of a publisher: a request as far as it is there.
    input: Vec<u8>,
    reader: Option<Reader>,
}

struct Reader {
    topic: usize,
    /// Its place among the topic's readers.
    place: usize,
    /// How far it was sent the log.
    upto: u64,
    /// Its socket is full; it goes on when there is room.
    full: bool,
}

const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 4_096;
const BUFFER_BYTES: usize = 64 * 1024;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Cache-Control: no-store\r\nConnection: close\r\n\r\n";
const STORED: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

impl Floor {
    pub fn bind(listen: SocketAddr, drop_every: Option<u64>) -> Result<Self> {
        raise_file_limit();
        let listener = OwnedFd::from(TcpListener::bind(listen)?);
        // The standard library's backlog is 128; a second call sets another.
        rustix::net::listen(&listener, BACKLOG)?;
        ioctl_fionbio(&listener, true)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, EventFlags::IN)?;
        Ok(Self {
            listener,
            poll,
            connections: Vec::new(),
            free: Vec::new(),
            topics: Vec::new(),
            by_name: HashMap::new(),
            rung: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            drop_every,
            pushes: 0,
        })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(rustix::net::getsockname(&self.listener)?.try_into()?)
    }

    /// Serves for ever.
    pub fn run(&mut self) -> Result<()> {
        let mut ready = Ready::default();
        loop {
            self.poll.wait(&mut ready, None)?;
            for (token, flags) in ready.iter() {
                if token == LISTENER {
                    self.accept()?;
                } else {
                    self.handle(token as usize, flags);
                }
            }
            self.fan_out();
        }
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok(socket) = rustix::net::accept(&self.listener) {
            ioctl_fionbio(&socket, true)?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            let number = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.add(&socket, number as u64, EventFlags::IN)?;
            let connection = Connection { socket, input: Vec::new(), reader: None };
            self.connections[number] = Some(connection);
        }
        Ok(())
    }

    fn handle(&mut self, number: usize, flags: EventFlags) {
        let went =
            if flags.contains(EventFlags::OUT) { self.go_on(number) } else { self.take(number) };
        // A client that went away is no failure of the server's.
        if !went.unwrap_or(false) {
            self.close(number);
        }
    }

    /// Reads from a connection. False when it is over.
    fn take(&mut self, number: usize) -> Result<bool> {
        let Some(connection) = &mut self.connections[number] else { return Ok(true) };
        let Some(length) = read(&connection.socket, &mut self.buffer)? else { return Ok(true) };
        if length == 0 || connection.reader.is_some() {
            return Ok(0 < length);
        }
        connection.input.extend_from_slice(&self.buffer[..length]);
        let mut input = std::mem::take(&mut connection.input);
        let mut used = 0;
        while let Some((request, length)) = parse(&input[used..])? {
            match request {
                Request::Push { topic, body } => self.push(number, topic, body)?,
                Request::Stream { topic, last_id } => self.stream(number, topic, last_id)?,
            }
            used += length;
        }
        input.drain(..used);
        if let Some(connection) = &mut self.connections[number] {
            // A stream has no more to say, and its memory is measured.
            connection.input = if connection.reader.is_some() { Vec::new() } else { input };
        }
        Ok(true)
    }

    fn push(&mut self, number: usize, topic: &str, body: &[u8]) -> Result<()> {
        self.pushes += 1;
        let at = self.topic(topic);
        if self.drop_every.is_none_or(|every| !self.pushes.is_multiple_of(every)) {
            self.topics[at].log.append(body);
            self.rung.push(at);
        }
        let connection = self.connections[number].as_ref().ok_or("it is closed")?;
        write_all(&connection.socket, STORED)
    }

    fn stream(&mut self, number: usize, topic: &str, last_id: Option<u64>) -> Result<()> {
        let at = self.topic(topic);
        let topic = &mut self.topics[at];
        let upto = last_id.map_or(topic.log.sent(), |id| topic.log.after(id));
        let connection = self.connections[number].as_mut().ok_or("it is closed")?;
        write_all(&connection.socket, HEAD)?;
        connection.reader =
            Some(Reader { topic: at, place: topic.readers.len(), upto, full: false });
        topic.readers.push(number);
        if upto < topic.log.end() {
            self.go_on(number)?;
        }
        Ok(())
    }

    fn topic(&mut self, name: &str) -> usize {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        self.topics.push(Topic::default());
        self.by_name.insert(name.to_owned(), self.topics.len() - 1);
        self.topics.len() - 1
    }

    /// Sends what this turn brought: one `send` for each reader.
    fn fan_out(&mut self) {
        let mut gone = Vec::new();
        for at in self.rung.drain(..) {
            let Topic { log, readers } = &mut self.topics[at];
            let end = log.end();
            let (from, bytes) = (log.sent(), log.unsent());
            if bytes.is_empty() {
                continue;
            }
            for number in readers.iter() {
                let Some(Connection { socket, reader: Some(reader), .. }) =
                    &mut self.connections[*number]
                else {
                    continue;
                };
                if reader.full || end <= reader.upto {
                    continue;
                }
                // One that came within this turn may have been sent a part.
                let bytes = if reader.upto == from { Some(bytes) } else { log.from(reader.upto) };
                let Some(bytes) = bytes else {
                    gone.push(*number);
                    continue;
                };
                match write(socket, bytes) {
                    Ok(length) if length == bytes.len() => reader.upto = end,
                    Ok(length) => {
                        reader.upto += length as u64;
                        reader.full = true;
                        let flags = EventFlags::IN | EventFlags::OUT;
                        if self.poll.modify(socket, *number as u64, flags).is_err() {
                            gone.push(*number);
                        }
                    }
                    Err(_) => gone.push(*number),
                }
            }
            log.mark_sent();
        }
        for number in gone {
            self.close(number);
        }
    }

    /// Sends to a reader whose socket has room again, or that came back. False when what it wants
    /// is gone.
    fn go_on(&mut self, number: usize) -> Result<bool> {
        let Some(Connection { socket, reader: Some(reader), .. }) = &mut self.connections[number]
        else {
            return Ok(true);
        };
        let log = &self.topics[reader.topic].log;
        let Some(bytes) = log.from(reader.upto) else { return Ok(false) };
        reader.upto += write(socket, bytes)? as u64;
        let full = reader.upto < log.end();
        if full != reader.full {
            let more = if full { EventFlags::OUT } else { EventFlags::empty() };
            self.poll.modify(socket, number as u64, EventFlags::IN | more)?;
            reader.full = full;
        }
        Ok(true)
    }

    fn close(&mut self, number: usize) {
        let Some(connection) = self.connections[number].take() else { return };
        self.free.push(number);
        let Some(reader) = connection.reader else { return };
        let readers = &mut self.topics[reader.topic].readers;
        readers.swap_remove(reader.place);
        let moved = readers.get(reader.place).copied();
        if let Some(Connection { reader: Some(moved), .. }) =
            moved.and_then(|moved| self.connections[moved].as_mut())
        {
            moved.place = reader.place;
        }
    }
}
