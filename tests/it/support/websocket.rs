//! A WebSocket client that shows every frame (RFC 6455). An oracle: nothing here is shared with the
//! gateway.

use std::{
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use rustls::ClientConfig;
use serde_json::Value;

use super::{
    PATIENCE,
    gateway::Gateway,
    http1,
    parser::Dispatched,
    reader::{Signal, tls_stream},
    tunnel::Tunnel,
};

/// A message or a control frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

/// The key of the example in RFC 6455, section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The headers of a handshake.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
];

/// An open WebSocket.
pub struct WebSocket {
    io: BufReader<Box<dyn Io>>,
    pub headers: Vec<(String, String)>,
    /// True if pings are answered and a close frame is echoed.
    pub answers: bool,
    /// The frames of a message that has not ended.
    message: Vec<u8>,
    /// The number of frames of the last message.
    pub fragments: usize,
}

impl WebSocket {
    /// Connects to a gateway.
    pub fn open(gateway: &Gateway, query: &str) -> Self {
        Self::open_with(gateway, query, &[])
    }

    /// Connects with more headers.
    pub fn open_with(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> Self {
        let socket = http1::connect(gateway.address);
        Self::over(socket, gateway.tls.as_ref(), false, &format!("/ws{query}"), headers)
    }

    /// Connects on `socket`: over TLS if there is a `tls`, or else over HTTP/2 if `is_http2`.
    pub fn over(
        socket: TcpStream,
        tls: Option<&Arc<ClientConfig>>,
        is_http2: bool,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let address = socket.peer_addr().unwrap();
        match tls {
            Some(tls) => Self::on(tls_stream(socket, tls), path, headers),
            None if is_http2 => Self::over_http2(socket, address, path, headers),
            None => Self::on(socket, path, headers),
        }
    }

    /// Does the handshake on a socket.
    pub fn on(
        io: impl Read + Write + Send + 'static,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut io: BufReader<Box<dyn Io>> = BufReader::new(Box::new(io));
        http1::write_head(io.get_mut(), "GET", path, &[&HANDSHAKE, headers].concat());
        Self::begun(io)
    }

    /// Connects over a stream of HTTP/2.
    pub fn over_http2(
        socket: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let headers = [&[("sec-websocket-version", "13")], headers].concat();
        let tunnel = Tunnel::connect(socket, address, ("websocket", path), &headers).unwrap();
        let headers = tunnel.headers.clone();
        let io: BufReader<Box<dyn Io>> = BufReader::new(Box::new(tunnel));
        Self { io, headers, answers: true, message: Vec::new(), fragments: 0 }
    }

    /// Reads the answer to a handshake that was sent.
    fn begun(mut io: BufReader<Box<dyn Io>>) -> Self {
        let (status, headers) = http1::read_head(&mut io).unwrap();
        assert_eq!(status, 101, "{headers:?}");
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_lowercase())
        };
        assert_eq!(header("upgrade").as_deref(), Some("websocket"));
        assert_eq!(header("connection").as_deref(), Some("upgrade"));
        assert_eq!(header("sec-websocket-accept"), Some(ACCEPT.to_lowercase()));
        for absent in [
            "transfer-encoding",
            "content-length",
            "sec-websocket-extensions",
            "sec-websocket-protocol",
        ] {
            assert_eq!(header(absent), None, "{absent}");
        }
        Self { io, headers, answers: true, message: Vec::new(), fragments: 0 }
    }

    /// Sends the handshake and `frames` in one write.
    pub fn open_ahead(socket: TcpStream, path: &str, frames: &[u8]) -> Self {
        let mut bytes = Vec::new();
        http1::write_head(&mut bytes, "GET", path, &HANDSHAKE);
        bytes.extend_from_slice(frames);
        let mut io: BufReader<Box<dyn Io>> = BufReader::new(Box::new(socket));
        io.get_mut().write_all(&bytes).unwrap();
        Self::begun(io)
    }

    /// Sends a frame whose first byte is `first`.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&frame(first, payload));
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.io.get_mut().write_all(bytes).unwrap();
        self.io.get_mut().flush().unwrap();
    }

    /// Sends a command.
    pub fn command(&mut self, command: &Value) {
        self.send_frame(0x81, command.to_string().as_bytes());
    }

    /// Returns the next message or control frame. None at the end, however the connection ends.
    pub fn receive(&mut self) -> Option<Received> {
        loop {
            let (first, payload) = self.read_frame().ok()?;
            assert_eq!(first & 0x70, 0, "no extension was agreed on");
            let is_last = first & 0x80 != 0;
            match first & 0x0f {
                opcode @ (0 | 1) => {
                    assert_eq!(opcode == 1, self.message.is_empty(), "fragments in order");
                    self.fragments = if opcode == 1 { 1 } else { self.fragments + 1 };
                    self.message.extend(payload);
                    if is_last {
                        let message = std::mem::take(&mut self.message);
                        return Some(Received::Text(String::from_utf8(message).unwrap()));
                    }
                }
                8 => return Some(self.closed(&payload)),
                9 => {
                    if self.answers {
                        self.send_frame(0x8a, &payload);
                    }
                    return Some(Received::Ping(payload));
                }
                10 => return Some(Received::Pong(payload)),
                other => panic!("opcode {other}"),
            }
        }
    }

    fn closed(&mut self, payload: &[u8]) -> Received {
        if self.answers {
            // The gateway may have closed the socket already.
            drop(self.io.get_mut().write_all(&frame(0x88, payload)));
            self.answers = false;
        }
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap();
        Received::Close(code, reason)
    }

    fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.io.read_exact(&mut head)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let mut length = u64::from(head[1]);
        if 126 <= length {
            let mut bytes = [0; 8];
            let from = if length == 126 { 6 } else { 0 };
            self.io.read_exact(&mut bytes[from..])?;
            length = u64::from_be_bytes(bytes);
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.io.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }

    /// Returns the next record, and passes over control frames.
    pub fn record(&mut self) -> Value {
        let start = Instant::now();
        loop {
            // Pings come for ever.
            assert!(start.elapsed() < PATIENCE, "no record came");
            match self.receive() {
                Some(Received::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Received::Close(code, reason)) => panic!("closed: {code:?} {reason}"),
                Some(_) => {}
                None => panic!("the connection has ended"),
            }
        }
    }

    /// Returns the next record of a type.
    pub fn record_of(&mut self, kind: &str) -> Value {
        loop {
            let record = self.record();
            if record["type"] == kind {
                return record;
            }
        }
    }

    /// Reads to the end. Returns the last record, and the code of the close frame.
    pub fn end(&mut self) -> (Option<Value>, Option<u16>) {
        let (mut last, mut code) = (None, None);
        let start = Instant::now();
        while let Some(received) = self.receive() {
            assert!(start.elapsed() < PATIENCE, "the connection stays open");
            assert_eq!(code, None, "nothing follows a close frame: {received:?}");
            match received {
                Received::Text(text) => last = Some(serde_json::from_str(&text).unwrap()),
                Received::Close(closed, _) => code = closed,
                _ => {}
            }
        }
        (last, code)
    }
}

/// A masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        long @ 126..65_536 => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0xff);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = rand::random();
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The records of a WebSocket as lines, for [`super::reader`]. A keep-alive is an empty line.
pub struct Lines {
    socket: WebSocket,
    left: Vec<u8>,
}

impl Lines {
    pub fn new(socket: WebSocket) -> Self {
        Self { socket, left: Vec::new() }
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.socket.receive() {
                Some(Received::Text(text)) => self.left.extend(text.into_bytes()),
                Some(Received::Ping(_)) => {}
                Some(_) => continue,
                None => return Ok(0),
            }
            self.left.push(b'\n');
        }
        let read = buffer.len().min(self.left.len());
        buffer[..read].copy_from_slice(&self.left[..read]);
        self.left.drain(..read);
        Ok(read)
    }
}

/// Parser of records, one on each line.
#[derive(Debug, Default)]
pub struct RecordParser {
    line: Vec<u8>,
    last_event_id: String,
}

impl RecordParser {
    /// Takes more bytes and returns the signals of the lines that have ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Signal> {
        let mut signals = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                signals.push(self.signal(&line));
            } else {
                self.line.push(*byte);
            }
        }
        signals
    }

    fn signal(&mut self, line: &[u8]) -> Signal {
        if line.is_empty() {
            return Signal::KeepAlive;
        }
        let mut record: Value = serde_json::from_slice(line).unwrap();
        if let Some(id) = record["id"].as_str() {
            id.clone_into(&mut self.last_event_id);
        }
        let id = self.last_event_id.clone();
        let (event, data) = match record["type"].as_str().unwrap() {
            "checkpoint" => return Signal::Checkpoint(id),
            "event" => {
                let named = record["event"].as_str().unwrap_or("message");
                (named.to_owned(), text_of(&record))
            }
            control => {
                let event = format!("stream-{control}");
                record.as_object_mut().unwrap().remove("type");
                (event, record.to_string())
            }
        };
        Signal::Event(Dispatched { id, event, data })
    }
}

/// Returns the data of an event as text.
fn text_of(record: &Value) -> String {
    match (&record["data"], &record["data_base64"]) {
        (Value::String(text), _) | (Value::Null, Value::String(text)) => text.clone(),
        (Value::Null, _) => String::new(),
        (value, _) => value.to_string(),
    }
}
