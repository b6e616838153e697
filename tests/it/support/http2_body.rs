//! A request over HTTP/2 in clear text, and the body of its answer as bytes to read.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream},
};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;
use tokio::runtime::{Builder, Runtime};

use super::PATIENCE;

/// The body of an answer. Nothing of its connection runs while nothing is read.
pub struct Http2Body {
    runtime: Runtime,
    body: RecvStream,
    left: Bytes,
}

/// Sends a request. Returns the status, the headers and the body of the answer.
pub fn over_http2(
    socket: TcpStream,
    address: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: Bytes,
) -> (u16, Vec<(String, String)>, Http2Body) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        // It ends when the body is dropped.
        tokio::spawn(async move { drop(connection.await) });
        let mut request =
            http::Request::builder().method(method).uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        let request = request.body(()).unwrap();
        let mut send = send.ready().await.unwrap();
        let (answer, mut out) = send.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            out.send_data(body, true).unwrap();
        }
        answer.await.unwrap()
    });
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
    let (status, fields) = (answer.status().as_u16(), fields.collect());
    (status, fields, Http2Body { runtime, body: answer.into_body(), left: Bytes::new() })
}

impl Read for Http2Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            let next = async { tokio::time::timeout(PATIENCE, self.body.data()).await };
            let Some(next) = self.runtime.block_on(next)? else { return Ok(0) };
            self.left = next.map_err(io::Error::other)?;
            let taken = self.body.flow_control().release_capacity(self.left.len());
            taken.map_err(io::Error::other)?;
        }
        let read = buffer.len().min(self.left.len());
        self.left.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
