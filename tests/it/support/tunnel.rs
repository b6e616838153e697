//! A stream of HTTP/2 that carries a WebSocket: extended CONNECT (RFC 8441), as a client.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{sleep, timeout},
};

use super::PATIENCE;

/// Both directions of the stream. Its connection is served while it reads or writes.
pub struct Tunnel {
    runtime: Runtime,
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    received: Bytes,
    /// Headers of the answer.
    pub headers: Vec<(String, String)>,
}

impl Tunnel {
    /// Asks for a tunnel with `protocol`. Returns the status if that is not 200.
    pub fn connect(
        socket: TcpStream,
        address: SocketAddr,
        (protocol, path): (&str, &str),
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(async {
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::TcpStream::from_std(socket).unwrap();
            let (send, connection) = h2::client::handshake(socket).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            let mut send: SendRequest<Bytes> = send.ready().await.unwrap();
            // A client may use it only after the server's SETTINGS.
            let known = async {
                while !send.is_extended_connect_protocol_enabled() {
                    sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, known).await.unwrap();
            let mut request = http::Request::connect(format!("http://{address}{path}"))
                .extension(Protocol::from(protocol));
            for (name, value) in headers {
                request = request.header(*name, value.as_bytes());
            }
            let (answer, outgoing) = send.send_request(request.body(()).unwrap(), false).unwrap();
            (timeout(PATIENCE, answer).await.unwrap().unwrap(), outgoing)
        });
        let (answer, outgoing) = connected;
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
        let headers = headers.collect();
        Ok(Self {
            runtime,
            incoming: answer.into_body(),
            outgoing,
            received: Bytes::new(),
            headers,
        })
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() {
            let next = async { timeout(PATIENCE, self.incoming.data()).await };
            let Some(next) = self.runtime.block_on(next)? else { return Ok(0) };
            self.received = next.map_err(io::Error::other)?;
            let taken = self.incoming.flow_control().release_capacity(self.received.len());
            taken.map_err(io::Error::other)?;
        }
        let read = buffer.len().min(self.received.len());
        self.received.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes_all = Bytes::copy_from_slice(bytes);
        self.outgoing.send_data(bytes_all, false).map_err(io::Error::other)?;
        self.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The task of the connection writes meanwhile.
        self.runtime.block_on(async {
            for _ in 0..5 {
                yield_now().await;
            }
        });
        Ok(())
    }
}
