//! A reader of a format over a transport, so that a test runs over all of them.

use std::{
    collections::VecDeque,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use prost::Message as _;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::{
    PATIENCE,
    gateway::Gateway,
    grpc::{GrpcParser, SERVICE, framed, request_of},
    http1::{self, Body},
    http2_body::over_http2,
    ndjson::NdjsonParser,
    parser::{Dispatched, Parser},
    websocket::{Lines, RecordParser, WebSocket},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Sse,
    Ndjson,
    /// Records of a WebSocket.
    WebSocket,
    /// Records of gRPC.
    Grpc,
    /// Records of gRPC-Web.
    GrpcWeb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 in clear text, which the reactor writes.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 in clear text.
    Http2,
}

/// A format over a transport.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub format: Format,
    pub transport: Transport,
}

const fn case(format: Format, transport: Transport) -> Case {
    Case { format, transport }
}

/// Each format over each transport.
pub const CASES: [Case; 12] = [
    case(Format::Sse, Transport::Plain),
    case(Format::Ndjson, Transport::Plain),
    case(Format::Sse, Transport::Tls),
    case(Format::Ndjson, Transport::Tls),
    case(Format::Sse, Transport::Http2),
    case(Format::Ndjson, Transport::Http2),
    case(Format::WebSocket, Transport::Plain),
    case(Format::WebSocket, Transport::Tls),
    case(Format::WebSocket, Transport::Http2),
    case(Format::Grpc, Transport::Http2),
    case(Format::GrpcWeb, Transport::Plain),
    case(Format::GrpcWeb, Transport::Tls),
];

/// The cases of a gateway in clear text, and of one over TLS: for tests with many readers at once.
pub const BY_GATEWAY: [&[Case]; 2] = [
    &[CASES[0], CASES[1], CASES[4], CASES[5], CASES[6], CASES[8], CASES[9], CASES[10]],
    &[CASES[2], CASES[3], CASES[7], CASES[11]],
];

/// Each transport, and each format over HTTP/1.1 in clear text: for tests that take long.
pub const FEW_CASES: [Case; 7] =
    [CASES[0], CASES[1], CASES[3], CASES[4], CASES[6], CASES[9], CASES[10]];

impl Case {
    /// Returns true if the case can also send polls.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for filters")]
    pub fn can_poll(&self) -> bool {
        matches!(self.format, Format::Sse | Format::Ndjson)
    }

    /// A gateway as `dev` that serves the transport.
    pub fn gateway(self, flags: &[(&'static str, &str)]) -> Gateway {
        eprintln!("{self:?}");
        match self.transport {
            Transport::Tls => Gateway::dev_over_tls(flags),
            Transport::Plain | Transport::Http2 => Gateway::dev(flags),
        }
    }

    /// Opens a stream and reads its first message.
    pub fn open(self, gateway: &Gateway, query: &str) -> Reader {
        self.connect(gateway, query, &[]).opened()
    }

    /// Opens a stream that resumes after an id, and reads its first message.
    pub fn resume(self, gateway: &Gateway, query: &str, id: &str) -> Reader {
        self.connect(gateway, query, &[("last-event-id", id)]).opened()
    }

    /// Opens a stream whose receiver takes a few kilobytes and no more, and reads no message.
    pub fn open_narrow(self, gateway: &Gateway, query: &str) -> Reader {
        self.on(narrow_socket(), (gateway.address, gateway.tls.as_ref()), query, &[])
    }

    /// Opens a WebSocket whose receiver takes a few kilobytes and no more. Returns its socket too.
    pub fn open_narrow_websocket(self, gateway: &Gateway, query: &str) -> (WebSocket, TcpStream) {
        let socket = narrow_socket();
        socket.connect(&gateway.address.into()).unwrap();
        let socket = TcpStream::from(socket);
        let (wire, path) = (socket.try_clone().unwrap(), format!("/ws{query}"));
        let is_http2 = self.transport == Transport::Http2;
        (WebSocket::over(socket, gateway.tls.as_ref(), is_http2, &path, &[]), wire)
    }

    /// Opens a stream in clear text of a gateway in another process, and reads its first message.
    pub fn open_at(self, address: SocketAddr, query: &str) -> Reader {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        self.on(socket, (address, None), query, &[]).opened()
    }

    /// Opens a stream and reads the head of the answer.
    pub fn connect(self, gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> Reader {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        self.on(socket, (gateway.address, gateway.tls.as_ref()), query, headers)
    }

    fn on(
        self,
        socket: Socket,
        (address, tls): (SocketAddr, Option<&Arc<ClientConfig>>),
        query: &str,
        headers: &[(&str, &str)],
    ) -> Reader {
        socket.connect(&address.into()).unwrap();
        let socket: TcpStream = socket.into();
        let wire = socket.try_clone().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let accept = match self.format {
            Format::Sse => "text/event-stream",
            Format::Ndjson => "application/x-ndjson",
            Format::Grpc | Format::GrpcWeb => "",
            Format::WebSocket => {
                let is_http2 = self.transport == Transport::Http2;
                return over_websocket((socket, is_http2), wire, tls, query, headers);
            }
        };
        let content_type = match self.format {
            Format::Grpc => Some("application/grpc"),
            Format::GrpcWeb => Some("application/grpc-web+proto"),
            _ => None,
        };
        let (method, path, first, body) = match content_type {
            None => ("GET", format!("/events{query}"), ("accept", accept), Bytes::new()),
            Some(content_type) => {
                let message = framed(&request_of(query).encode_to_vec());
                ("POST", format!("{SERVICE}Subscribe"), ("content-type", content_type), message)
            }
        };
        let (request, headers) = ((method, path.as_str()), [&[first], headers].concat());
        let (status, head, body): (_, _, AnyBody) = match (self.transport, tls) {
            (Transport::Http2, _) => {
                let (status, head, body) = over_http2(socket, address, request, &headers, body);
                (status, head, Box::new(body))
            }
            (_, Some(tls)) => over_http1(tls_stream(socket, tls), request, &headers, &body),
            (_, None) => over_http1(socket, request, &headers, &body),
        };
        let parser = match self.format {
            Format::Sse => AnyParser::Sse(Parser::default(), Vec::new()),
            Format::Ndjson | Format::WebSocket => AnyParser::Ndjson(NdjsonParser::default()),
            Format::Grpc | Format::GrpcWeb => AnyParser::Grpc(GrpcParser::default()),
        };
        Reader::new((status, head, body), wire, parser)
    }
}

fn narrow_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket
}

/// Opens a WebSocket. Its stream counts as one with the status 200.
fn over_websocket(
    (socket, is_http2): (TcpStream, bool),
    wire: TcpStream,
    tls: Option<&Arc<ClientConfig>>,
    query: &str,
    headers: &[(&str, &str)],
) -> Reader {
    // Without a query, a WebSocket has no stream.
    let path = format!("/ws{}", if query.is_empty() { "?slow=gap" } else { query });
    let socket = WebSocket::over(socket, tls, is_http2, &path, headers);
    let parser = AnyParser::Records(RecordParser::default());
    let head = socket.headers.clone();
    Reader::new((200, head, Box::new(Lines::new(socket))), wire, parser)
}

/// What a reader is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// An event, or a control message: its name begins with `stream-`.
    Event(Dispatched),
    /// An id alone.
    Checkpoint(String),
    KeepAlive,
}

type AnyBody = Box<dyn Read + Send>;

enum AnyParser {
    /// The parser, and the text of a block that has not ended.
    Sse(Parser, Vec<u8>),
    Ndjson(NdjsonParser),
    Records(RecordParser),
    Grpc(GrpcParser),
}

/// An open stream.
pub struct Reader {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The socket below the transport.
    pub wire: TcpStream,
    body: AnyBody,
    parser: AnyParser,
    came: VecDeque<Signal>,
    last_event_id: String,
    /// What the stream began with.
    pub opened: Option<Dispatched>,
}

impl Reader {
    fn new(
        (status, headers, body): (u16, Vec<(String, String)>, AnyBody),
        wire: TcpStream,
        parser: AnyParser,
    ) -> Self {
        let (came, last_event_id) = (VecDeque::new(), String::new());
        Self { status, headers, wire, body, parser, came, last_event_id, opened: None }
    }

    /// Reads the first message, which must be `stream-open`.
    pub fn opened(mut self) -> Self {
        assert_eq!(self.status, 200);
        let opened = self.next_raw().expect("a first message");
        assert_eq!(opened.event, "stream-open");
        self.opened = Some(opened);
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The rest of the answer, which is no stream.
    pub fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body).unwrap();
        body
    }

    /// What comes next. None at the end of the stream, however it ends.
    pub fn next_signal(&mut self) -> Option<Signal> {
        let mut part = vec![0; 65_536];
        loop {
            if let Some(signal) = self.came.pop_front() {
                if let Signal::Event(Dispatched { id, .. }) | Signal::Checkpoint(id) = &signal {
                    id.clone_into(&mut self.last_event_id);
                }
                return Some(signal);
            }
            let read = self.body.read(&mut part).ok().filter(|read| 0 < *read)?;
            self.came.extend(self.parser.feed(&part[..read]));
        }
    }

    /// The next event, the gateway's own included.
    pub fn next_raw(&mut self) -> Option<Dispatched> {
        let start = Instant::now();
        loop {
            // Keep-alives come for ever.
            assert!(start.elapsed() < PATIENCE, "no event came");
            if let Signal::Event(event) = self.next_signal()? {
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

    /// Reads to the end of the stream, which must be announced. Returns its reason, and the
    /// milliseconds after which to reconnect.
    pub fn end(&mut self) -> (String, u64) {
        let mut last = None;
        while let Some(event) = self.next_raw() {
            last = Some(event);
        }
        let last = last.expect("an end");
        assert_eq!(last.event, "stream-end");
        let end: serde_json::Value = serde_json::from_str(&last.data).unwrap();
        let retry = match &self.parser {
            AnyParser::Sse(parser, _) => parser.retry.unwrap(),
            _ => end["retry"].as_u64().unwrap(),
        };
        (end["reason"].as_str().unwrap().to_owned(), retry)
    }

    /// The id to resume after.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }
}

impl AnyParser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Signal> {
        let (parser, text) = match self {
            Self::Ndjson(parser) => return parser.feed(bytes),
            Self::Records(parser) => return parser.feed(bytes),
            Self::Grpc(parser) => return parser.feed(bytes),
            Self::Sse(parser, text) => (parser, text),
        };
        let mut signals = Vec::new();
        for byte in bytes {
            text.push(*byte);
            if text.ends_with(b"\n\n") {
                let events = parser.feed(text).into_iter().map(Signal::Event);
                let before = signals.len();
                signals.extend(events);
                if signals.len() == before {
                    let is_id = text.starts_with(b"id:");
                    let id = || Signal::Checkpoint(parser.last_event_id.clone());
                    signals.push(if is_id { id() } else { Signal::KeepAlive });
                }
                text.clear();
            }
        }
        signals
    }
}

/// A TLS connection that speaks HTTP/1.1.
pub fn tls_stream(
    socket: TcpStream,
    tls: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(tls), name).unwrap(), socket)
}

fn over_http1(
    mut socket: impl Read + Write + Send + 'static,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, Vec<(String, String)>, AnyBody) {
    let length = body.len().to_string();
    let length = (!body.is_empty()).then_some(("content-length", length.as_str()));
    let headers: Vec<_> = headers.iter().copied().chain(length).collect();
    http1::write_head(&mut socket, method, path, &headers);
    socket.write_all(body).unwrap();
    let mut reader = BufReader::new(socket);
    let (status, headers) = http1::read_head(&mut reader).unwrap();
    let body = Body::new(reader, &headers);
    (status, headers, Box::new(body))
}
