//! A client of gRPC, made of `h2` and the messages of `proto/`.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::HeaderMap;
use prost::Message;
use serde_json::{Value, json};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tokio_rustls::TlsConnector;

use super::{PATIENCE, gateway::Gateway, parser::Dispatched, reader::Signal, tls::Certificate};

/// Messages of the interface.
#[allow(clippy::all, clippy::pedantic, dead_code, reason = "the code is generated")]
pub mod proto {
    include!("../../../src/outlet/grpc/generated/stream_events.v1.rs");
}

use proto::{Members, Record, SubscribeRequest, presence::Update, record::Record as Kind};

/// Path of the service.
pub const SERVICE: &str = "/stream_events.v1.StreamEvents/";

/// Returns a message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(message);
    out.freeze()
}

/// Returns the status of an answer: its code and its text.
pub fn status_of(headers: &HeaderMap) -> Option<(u8, String)> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let code = text("grpc-status")?.parse().unwrap();
    let message = text("grpc-message").unwrap_or_default();
    let message = percent_encoding::percent_decode_str(message).decode_utf8().unwrap();
    Some((code, message.into_owned()))
}

/// Connects, over TLS if there is a certificate to check.
async fn connect(tls: Option<&Certificate>, address: SocketAddr) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    let Some(certificate) = tls else {
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        return send;
    };
    let tls = TlsConnector::from(certificate.client(&["h2"]));
    let socket = tls.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    send
}

/// A call over a connection of its own, which is served while the call reads or writes.
pub struct Call {
    runtime: Runtime,
    out: SendStream<Bytes>,
    body: RecvStream,
    received: BytesMut,
    /// Headers of the answer.
    pub head: HeaderMap,
    /// Trailers, once the answer has ended.
    pub trailers: HeaderMap,
}

impl Call {
    /// Calls a method at a path with one message, and with these headers.
    pub fn with(
        gateway: &Gateway,
        path: &str,
        message: &impl Message,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut call = Self::begin(gateway, path, headers);
        call.send(message);
        call.finish();
        call.answered()
    }

    /// Subscribes to a topic.
    pub fn subscribe(gateway: &Gateway, topic: &str) -> Self {
        let asked = SubscribeRequest { topics: vec![topic.to_owned()], ..Default::default() };
        Self::with(gateway, &format!("{SERVICE}Subscribe"), &asked, &[])
    }

    /// Begins a call, whose answer is not waited for.
    pub fn begin(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Begun {
        Self::begin_at(gateway.address, path, headers)
    }

    /// Begins a call of a gateway in another process.
    pub fn begin_at(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Begun {
        Self::begin_over(None, address, path, headers)
    }

    /// Calls a method over TLS, which the gateway itself speaks.
    pub fn over_tls(
        certificate: &Certificate,
        gateway: &Gateway,
        path: &str,
        message: &impl Message,
    ) -> Self {
        let mut call = Self::begin_over(Some(certificate), gateway.address, path, &[]);
        call.send(message);
        call.finish();
        call.answered()
    }

    fn begin_over(
        tls: Option<&Certificate>,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Begun {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = runtime.block_on(async {
            let send = connect(tls, address).await;
            let scheme = if tls.is_some() { "https" } else { "http" };
            let uri = format!("{scheme}://localhost:{}{path}", address.port());
            let mut request = http::Request::post(uri).header("te", "trailers");
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header("content-type", "application/grpc");
            }
            for (name, value) in headers {
                request = request.header(*name, value.as_bytes());
            }
            let mut send = send.ready().await.unwrap();
            send.send_request(request.body(()).unwrap(), false).unwrap()
        });
        let (answer, out) = begun;
        Begun { runtime, answer, out }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &impl Message) {
        self.out.send_data(framed(&message.encode_to_vec()), false).unwrap();
    }

    /// Ends the client's direction.
    pub fn finish(&mut self) {
        self.out.send_data(Bytes::new(), true).unwrap();
    }

    /// Resets the call.
    pub fn reset(mut self) {
        self.out.send_reset(h2::Reason::CANCEL);
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    }

    /// Returns the next message, or `None` at the end of the answer.
    pub fn next<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some([0, length @ ..]) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes(*length) as usize;
                if 5 + length <= self.received.len() {
                    let message = self.received.split_to(5 + length).split_off(5);
                    return Some(M::decode(message.freeze()).unwrap());
                }
            }
            let Self { runtime, body, .. } = self;
            let data = runtime.block_on(async { timeout(PATIENCE, body.data()).await.unwrap() });
            let Some(data) = data else {
                let trailers = runtime.block_on(body.trailers()).unwrap();
                self.trailers = trailers.unwrap_or_default();
                assert!(self.received.is_empty(), "the answer was cut off");
                return None;
            };
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            self.received.extend_from_slice(&data);
        }
    }

    /// Returns the next record that is no keep-alive.
    pub fn record(&mut self) -> Record {
        loop {
            let record: Record = self.next().expect("the stream has ended");
            if !matches!(record.record, Some(Kind::KeepAlive(_))) {
                return record;
            }
        }
    }

    /// Returns the next event.
    pub fn event(&mut self) -> proto::Event {
        loop {
            if let Some(Kind::Event(event)) = self.record().record {
                return event;
            }
        }
    }

    /// Reads to the end. Returns the last record and the status.
    pub fn end(&mut self) -> (Option<Kind>, (u8, String)) {
        let mut last = None;
        while let Some(record) = self.next::<Record>() {
            last = record.record;
        }
        (last, self.status())
    }

    /// Returns the status, which is in the head or in the trailers.
    pub fn status(&self) -> (u8, String) {
        status_of(&self.head).or_else(|| status_of(&self.trailers)).expect("a status")
    }
}

/// A call that has no answer yet.
pub struct Begun {
    runtime: Runtime,
    answer: h2::client::ResponseFuture,
    out: SendStream<Bytes>,
}

impl Begun {
    /// Sends a message.
    pub fn send(&mut self, message: &impl Message) {
        self.send_bytes(framed(&message.encode_to_vec()));
    }

    pub fn send_bytes(&mut self, bytes: Bytes) {
        self.out.send_data(bytes, false).unwrap();
    }

    /// Ends the client's direction.
    pub fn finish(&mut self) {
        self.out.send_data(Bytes::new(), true).unwrap();
    }

    /// Waits for the head of the answer.
    pub fn answered(self) -> Call {
        let Self { runtime, answer, out } = self;
        let answer = runtime.block_on(async { timeout(PATIENCE, answer).await.unwrap().unwrap() });
        assert_eq!(answer.status(), 200);
        let (head, body) = answer.into_parts();
        let trailers = HeaderMap::new();
        Call { runtime, out, body, received: BytesMut::new(), head: head.headers, trailers }
    }
}

/// Returns the request for a stream that says the same as a query.
pub fn request_of(query: &str) -> SubscribeRequest {
    let mut asked = SubscribeRequest::default();
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = percent_encoding::percent_decode_str(&value).decode_utf8().unwrap();
        let value = value.into_owned();
        match name {
            "topic" => asked.topics.extend(value.split(',').map(str::to_owned)),
            "filter" => asked.filter = value,
            "last_event_id" => asked.last_event_id = value,
            "since" => asked.since = value,
            "rewind" => asked.rewind = value.parse().unwrap(),
            "latest" => asked.latest = value,
            "slow" => asked.slow = value,
            "presence" => asked.presence = value,
            "name" => asked.name = value,
            other => panic!("{other}: is no field of SubscribeRequest"),
        }
    }
    asked
}

/// Parser of the records of a stream, of gRPC or gRPC-Web.
#[derive(Debug, Default)]
pub struct GrpcParser {
    bytes: BytesMut,
    last_event_id: String,
}

impl GrpcParser {
    /// Takes more bytes and returns the signals of the records in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Signal> {
        self.bytes.extend_from_slice(bytes);
        let mut signals = Vec::new();
        while let Some([flag, length @ ..]) = self.bytes.first_chunk::<5>().copied() {
            let length = u32::from_be_bytes(length) as usize;
            if self.bytes.len() < 5 + length {
                break;
            }
            let message = self.bytes.split_to(5 + length).split_off(5);
            // The status of gRPC-Web comes after the last record.
            if flag == 0 {
                signals.push(self.signal(Record::decode(message.freeze()).unwrap()));
            }
        }
        signals
    }

    fn signal(&mut self, record: Record) -> Signal {
        let kind = record.record.unwrap();
        if let Kind::Event(proto::Event { id, .. })
        | Kind::Open(proto::Open { id, .. })
        | Kind::Checkpoint(proto::Checkpoint { id }) = &kind
        {
            id.clone_into(&mut self.last_event_id);
        }
        let id = self.last_event_id.clone();
        let (name, data) = match kind {
            Kind::Checkpoint(_) => return Signal::Checkpoint(id),
            Kind::KeepAlive(_) => return Signal::KeepAlive,
            Kind::Event(event) => {
                let named = event.attributes.get("event").filter(|name| !name.is_empty());
                let name = named.map_or("message", String::as_str).to_owned();
                let text = String::from_utf8(event.data.to_vec());
                let data = text.unwrap_or_else(|_| STANDARD.encode(&event.data));
                return Signal::Event(Dispatched { id, event: name, data });
            }
            Kind::Open(open) => (
                "open",
                json!({"id": open.id, "stream": open.stream, "topics": open.topics,
                       "resumed": open.resumed, "retry": open.retry_ms}),
            ),
            Kind::Gap(gap) => {
                let after = (!gap.after.is_empty()).then_some(gap.after);
                let mut data = json!({"reason": gap.reason, "topics": gap.topics, "after": after,
                                      "upto": gap.upto});
                if gap.topics_more != 0 {
                    data["topics_more"] = json!(gap.topics_more);
                }
                ("gap", data)
            }
            Kind::Folded(folded) => {
                let mut data = json!({"events": folded.events, "after": folded.after,
                                      "upto": folded.upto, "keys": folded.keys});
                if folded.keys_more != 0 {
                    data["keys_more"] = json!(folded.keys_more);
                }
                ("folded", data)
            }
            Kind::Presence(presence) => ("presence", presence_of(presence)),
            Kind::Auth(auth) => ("auth", json!({"expires_in": auth.expires_in})),
            Kind::End(end) => ("end", json!({"reason": end.reason, "retry": end.retry_ms})),
            Kind::Ok(_) | Kind::Error(_) => panic!("the answer to a command"),
        };
        Signal::Event(Dispatched { id, event: format!("stream-{name}"), data: data.to_string() })
    }
}

fn presence_of(presence: proto::Presence) -> Value {
    let list = |members: &Members| -> Vec<Value> {
        let one =
            |member: &proto::Member| json!({"subject": member.subject, "streams": member.streams});
        members.members.iter().map(one).collect()
    };
    let topic = presence.topic;
    match presence.update.unwrap() {
        Update::Members(members) => json!({"topic": topic, "members": list(&members),
                                           "anonymous": members.anonymous, "more": members.more}),
        Update::Also(also) => json!({"topic": topic, "also": list(&also)}),
        Update::Join(name) => json!({"topic": topic, "join": name}),
        Update::Leave(name) => json!({"topic": topic, "leave": name}),
    }
}
