//! A client that speaks HTTP/2 over TLS, as browsers do, and an `EventSource` on top of it.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::{
    gateway::message,
    parser::{Dispatched, Parser},
    tls::Certificate,
};

/// Opens a connection for each request: many users, and not many tabs of one.
#[derive(Clone)]
pub struct Http2 {
    address: SocketAddr,
    tls: TlsConnector,
    /// Where it connects from: all of 127.0.0.0/8 is this machine.
    pub from: IpAddr,
    /// Sent with each request.
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Http2 {
    pub fn new(address: SocketAddr, certificate: &Certificate) -> Self {
        let tls = TlsConnector::from(certificate.client(&["h2"]));
        Self { address, tls, from: Ipv4Addr::LOCALHOST.into(), headers: Vec::new() }
    }

    /// The same from another address.
    pub fn from(&self, last: u8) -> Self {
        Self { from: Ipv4Addr::new(127, 0, 0, last).into(), ..self.clone() }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> io::Result<Response<RecvStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let socket = socket.connect(self.address).await?;
        socket.set_nodelay(true)?;
        let socket = self.tls.connect("localhost".try_into().unwrap(), socket).await?;
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = h2::client::handshake(socket).await.map_err(io::Error::other)?;
        // It ends when nobody has anything of it any more.
        tokio::spawn(async move { drop(connection.await) });
        let uri = format!("https://localhost:{}{path}", self.address.port());
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in self.headers.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let mut send = send.ready().await.map_err(io::Error::other)?;
        let request = request.body(()).unwrap();
        let (response, mut out) =
            send.send_request(request, body.is_empty()).map_err(io::Error::other)?;
        if !body.is_empty() {
            // h2 holds what the peer's window has no room for.
            out.send_data(body, true).map_err(io::Error::other)?;
        }
        response.await.map_err(io::Error::other)
    }

    pub async fn status(&self, method: Method, path: &str, body: Bytes) -> u16 {
        self.send(method, path, &[], body).await.unwrap().status().as_u16()
    }

    /// Pushes data, wrapped as Pub/Sub does. The status, if there was an answer.
    pub async fn push(&self, data: &str, id: &str) -> io::Result<u16> {
        let body = json!({ "message": message(data, id) }).to_string();
        let headers = [("content-type", "application/json")];
        let answer = self.send(Method::POST, "/push/orders", &headers, body.into()).await?;
        Ok(answer.status().as_u16())
    }

    /// Asks for a stream, after an id if there is one, and reads what it begins with.
    pub async fn events(&self, last_event_id: &str) -> io::Result<Events> {
        let mut headers = vec![("accept", "text/event-stream")];
        if !last_event_id.is_empty() {
            headers.push(("last-event-id", last_event_id));
        }
        let answer = self.send(Method::GET, "/events", &headers, Bytes::new()).await?;
        let mut parser = Parser::default();
        parser.resume(last_event_id);
        let status = answer.status().as_u16();
        let body = answer.into_body();
        Ok(Events { status, body, parser, came: VecDeque::new(), blocks: 0 })
    }
}

/// A stream of events.
pub struct Events {
    pub status: u16,
    body: RecvStream,
    pub parser: Parser,
    came: VecDeque<Dispatched>,
    /// How many parts came: events and keep-alives.
    pub blocks: usize,
}

impl Events {
    /// Reads what comes next. False at the end, however the stream ends.
    pub async fn read(&mut self) -> bool {
        let Some(Ok(data)) = self.body.data().await else { return false };
        if self.body.flow_control().release_capacity(data.len()).is_err() {
            return false;
        }
        self.blocks += 1;
        self.came.extend(self.parser.feed(&data));
        true
    }

    /// The next event, the gateway's own included.
    pub async fn next_raw(&mut self) -> Option<Dispatched> {
        loop {
            if let Some(event) = self.came.pop_front() {
                return Some(event);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The data of the next event of an application.
    pub async fn next(&mut self) -> String {
        loop {
            let event = self.next_raw().await.expect("the stream has ended");
            if !event.event.starts_with("stream-") {
                return event.data;
            }
        }
    }
}
