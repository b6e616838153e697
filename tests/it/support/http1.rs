//! An HTTP/1.1 client that shows every byte, and an `EventSource` on top of it.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use super::{
    PATIENCE,
    parser::{Dispatched, Parser},
};

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// One request on a connection of its own, to the end of the answer.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    request_on(connect(address), method, path, headers, body)
}

/// One request on a connection that is closed after it, to the end of the answer.
pub fn request_on(
    mut socket: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let length = body.len().to_string();
    let mut all = vec![("Connection", "close")];
    if !body.is_empty() || method == "POST" {
        all.push(("Content-Length", &length));
    }
    all.extend_from_slice(headers);
    write_head(&mut socket, method, path, &all);
    socket.write_all(body).unwrap();
    read_answer(socket, method)
}

/// Sends bytes, and reads what comes until the server closes, or has said nothing for a while. Either
/// may end early: whoever is attacked may close.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    exchange_for(address, bytes, std::time::Duration::from_millis(500))
}

/// As [`exchange`], with how long a silence ends it.
pub fn exchange_for(address: SocketAddr, bytes: &[u8], silence: std::time::Duration) -> String {
    let mut socket = connect(address);
    socket.write_all(bytes).ok();
    read_on(socket, silence)
}

/// What comes until the server closes, or has said nothing for a while.
pub fn read_on(mut socket: TcpStream, silence: std::time::Duration) -> String {
    socket.set_read_timeout(Some(silence)).unwrap();
    let mut text = Vec::new();
    let ended = socket.read_to_end(&mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if ended.is_ok() {
        text.push_str(CLOSED);
    }
    text
}

/// Ends what [`exchange`] returns when the server has closed the connection.
pub const CLOSED: &str = "(closed)";

pub fn write_head(socket: &mut impl Write, method: &str, path: &str, headers: &[(&str, &str)]) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).unwrap();
}

pub fn read_answer(socket: impl Read, method: &str) -> Answer {
    let mut reader = BufReader::new(socket);
    let (status, headers) = read_head(&mut reader).unwrap();
    let mut body = Vec::new();
    if method != "HEAD" {
        Body::new(reader, &headers).read_to_end(&mut body).unwrap();
    }
    Answer { status, headers, body }
}

pub type Head = (u16, Vec<(String, String)>);

pub fn read_head(reader: &mut impl io::BufRead) -> io::Result<Head> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines[1..].iter().map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    });
    Ok((status, headers.collect()))
}

/// A body without its framing.
pub struct Body<S = TcpStream> {
    reader: BufReader<S>,
    /// What is left of the chunk or of the body.
    left: Option<usize>,
    chunked: bool,
    ended: bool,
}

impl<S: Read> Body<S> {
    pub fn new(reader: BufReader<S>, headers: &[(String, String)]) -> Self {
        let chunked = header(headers, "transfer-encoding") == Some("chunked");
        let length = header(headers, "content-length").map(|length| length.parse().unwrap());
        let left = if chunked { Some(0) } else { length };
        Self { reader, left, chunked, ended: false }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        self.left = Some(length);
        self.ended = length == 0;
        Ok(())
    }
}

impl<S: Read> Read for Body<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunked && self.left == Some(0) && !self.ended {
            self.next_chunk()?;
        }
        let most = self.left.unwrap_or(buffer.len()).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..most])?;
        self.left = self.left.map(|left| left - read);
        Ok(read)
    }
}

/// A stream of events, read as a browser reads it.
pub struct EventSource {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: Body,
    text: Vec<u8>,
    /// How much of the text was searched for the end of a block.
    searched: usize,
    pub parser: Parser,
    /// What the stream began with.
    pub opened: Option<Dispatched>,
}

impl EventSource {
    /// Opens a stream and reads its first event, which must be `stream-open`.
    pub fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut source = Self::connect(address, path, headers);
        assert_eq!(source.status, 200, "{path}");
        let opened = source.next_raw().expect("a first block");
        assert_eq!(opened.event, "stream-open", "{path}");
        source.opened = Some(opened);
        source
    }

    /// Opens a stream and reads its head.
    pub fn connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = connect(address);
        let mut all = vec![("Accept", "text/event-stream")];
        all.extend_from_slice(headers);
        write_head(&mut socket, "GET", path, &all);
        Self::from_socket(socket)
    }

    /// A stream that was asked for on this socket.
    pub fn from_socket(socket: TcpStream) -> Self {
        let mut reader = BufReader::new(socket);
        let (status, headers) = read_head(&mut reader).unwrap();
        let body = Body::new(reader, &headers);
        let parser = Parser::default();
        Self { status, headers, body, text: Vec::new(), searched: 0, parser, opened: None }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// What it comes from.
    pub fn socket(&self) -> TcpStream {
        self.body.reader.get_ref().try_clone().unwrap()
    }

    /// From now on nothing is waited for.
    pub fn set_nonblocking(&mut self) {
        self.body.reader.get_ref().set_nonblocking(true).unwrap();
    }

    /// Whether nothing but what opens a stream, and keeps it, has come.
    pub fn is_silent(&mut self) -> bool {
        let mut part = [0; 4096];
        match self.body.read(&mut part) {
            Err(err) => err.kind() == io::ErrorKind::WouldBlock,
            Ok(read) => !part[..read].windows(5).any(|field| field == b"data:"),
        }
    }

    /// The next bytes as they are on the wire.
    pub fn next_bytes(&mut self) -> Vec<u8> {
        let mut part = vec![0; 65_536];
        let read = self.body.read(&mut part).unwrap();
        part.truncate(read);
        part
    }

    /// The next block as it is on the wire, with its empty line. None at the end of the stream.
    pub fn next_block(&mut self) -> Option<String> {
        loop {
            let unsearched = &self.text[self.searched..];
            if let Some(end) = unsearched.windows(2).position(|pair| pair == b"\n\n") {
                let end = self.searched + end;
                self.searched = 0;
                let block = self.text.drain(..end + 2).collect();
                return Some(String::from_utf8(block).unwrap());
            }
            self.searched = self.text.len().saturating_sub(1);
            let mut part = vec![0; 65_536];
            match self.body.read(&mut part) {
                Ok(0) => return None,
                Ok(read) => self.text.extend_from_slice(&part[..read]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    panic!("nothing came; so far: {:?}", String::from_utf8_lossy(&self.text))
                }
                Err(_) => return None,
            }
        }
    }

    /// The next event that a parser dispatches, the gateway's own included.
    pub fn next_raw(&mut self) -> Option<Dispatched> {
        let start = Instant::now();
        loop {
            // Keep-alives come for ever.
            assert!(start.elapsed() < PATIENCE, "no event came");
            let block = self.next_block()?;
            let mut dispatched = self.parser.feed(block.as_bytes());
            if let Some(event) = dispatched.pop() {
                return Some(event);
            }
        }
    }

    /// The next event of an application.
    pub fn next(&mut self) -> Dispatched {
        loop {
            let event = self.next_raw().expect("the stream has ended");
            if !event.event.starts_with("stream-") {
                return event;
            }
        }
    }

    /// The data of the next `n` events.
    pub fn take(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.next().data).collect()
    }

    /// What a browser would send as `Last-Event-ID`.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_event_id
    }
}
