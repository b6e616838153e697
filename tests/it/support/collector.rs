//! A fake OpenTelemetry collector: OTLP over HTTP, in protobuf.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use prost::Message;

use super::http1;

type Headers = Vec<(String, String)>;

struct Post {
    headers: Headers,
    body: Vec<u8>,
}

/// Requests, oldest first.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Post>>>);

pub struct Collector {
    address: SocketAddr,
    received: Received,
}

/// Request of OTLP, with the fields that the tests read.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_ns: u64,
    #[prost(fixed64, tag = "8")]
    pub end_ns: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub text: Option<String>,
}

impl Span {
    pub fn attribute(&self, key: &str) -> Option<&str> {
        text_of(&self.attributes, key)
    }
}

/// Returns the text of the attribute with this key.
pub fn text_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.text.as_deref()
}

impl Collector {
    /// Starts a collector that answers each request with 200.
    pub fn start() -> Self {
        Self::with(true)
    }

    /// Starts a collector that reads each request and answers none.
    pub fn silent() -> Self {
        Self::with(false)
    }

    fn with(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, all) = (listener.local_addr().unwrap(), Received::default());
        let received = all.clone();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let received = received.clone();
                thread::spawn(move || {
                    let mut reader = BufReader::new(socket);
                    while let Ok((line, headers)) = request_head(&mut reader) {
                        assert_eq!(line, "POST /v1/traces HTTP/1.1");
                        let header = |name| http1::header(&headers, name).unwrap();
                        assert_eq!(header("content-type"), "application/x-protobuf");
                        let mut body = vec![0; header("content-length").parse().unwrap()];
                        reader.read_exact(&mut body).unwrap();
                        received.0.lock().unwrap().push(Post { headers, body });
                        if answers {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            reader.get_mut().write_all(answer).unwrap();
                        }
                    }
                });
            }
        });
        Self { address, received: all }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the bodies that were received so far, oldest first.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.received.0.lock().unwrap().iter().map(|post| post.body.clone()).collect()
    }

    /// Returns the headers of the requests that were received so far.
    pub fn heads(&self) -> Vec<Headers> {
        self.received.0.lock().unwrap().iter().map(|post| post.headers.clone()).collect()
    }

    /// Returns the requests that were received so far.
    pub fn requests(&self) -> Vec<Request> {
        self.bodies().iter().map(|body| Request::decode(&**body).unwrap()).collect()
    }

    /// Returns the spans that were received so far.
    pub fn spans(&self) -> Vec<Span> {
        let all = self.requests().into_iter().flat_map(|request| request.resource_spans);
        all.flat_map(|spans| spans.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

/// Reads the head of a request: its line and its headers.
fn request_head(reader: &mut impl std::io::BufRead) -> std::io::Result<(String, Headers)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let pair = |line: &String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Ok((lines.remove(0), lines.iter().map(pair).collect()))
}
