//! Prepares accepted sockets: reads the PROXY protocol header, does the TLS handshake, and
//! distinguishes HTTP/1.1 from HTTP/2. Sets the socket options of a listener.
//!
//! The crate does this itself instead of calling actix's `listen_auto_h2c`, which reads the HTTP/2
//! preface once and without a time limit: a peer that sends nothing would keep its connection for
//! ever, and a preface in two segments would not be recognized.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use rustls::ServerConfig;
use socket2::{Socket, TcpKeepalive};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::timeout,
};

use crate::net::{proxy_protocol::ProxyProtocol, socket::Transport, tls_stream::TlsStream};

/// Settings with which accepted sockets are prepared.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    /// TLS side of the connections. `None` for clear text.
    tls: Option<Arc<ServerConfig>>,
    /// Reader of the PROXY protocol header. `None` when connections begin without one.
    proxy_protocol: Option<ProxyProtocol>,
    /// Time limit for everything before the first request.
    handshake_timeout: Duration,
    /// Counter of the connections that exceeded `handshake_timeout`.
    timeouts: IntCounter,
}

/// Connection whose protocol is known.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Plain or TLS side of the socket.
    pub transport: Transport,
    /// Bytes that were read to recognize the protocol. They are the first bytes of the connection.
    pub ahead: Bytes,
    /// True for HTTP/2, false for HTTP/1.
    pub is_http2: bool,
    /// Address of the client, taken from the PROXY protocol header if that has one.
    pub peer: Option<SocketAddr>,
}

/// First bytes of an HTTP/2 connection ([RFC 9113, section
/// 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Limit of the bytes of one read before the protocol is known. The head of a browser's request is
/// mostly shorter.
const FIRST_READ_BYTES: usize = 2 * 1024;
/// Limit of the unsent bytes that the kernel buffers for a socket, on top of the bytes in flight.
/// Without it a stalled reader pins up to 4 MB (`tcp_wmem`). The socket of a slow reader would also
/// take nothing until a megabyte is sent, which looks like a stall. Bytes in flight are not
/// limited, so a fast and distant reader loses no throughput.
const UNSENT_MAX_BYTES: u32 = 64 * 1024;
/// Idle time after which the kernel probes a peer. It detects peers that vanished without a FIN,
/// because their network was cut.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

impl Acceptor {
    /// Creates an acceptor. It expects TLS if `tls` is given, and a PROXY protocol header before
    /// each connection if `proxy_protocol` is given. `timeouts` counts the connections whose
    /// handshake takes longer than `handshake_timeout`.
    pub(crate) fn new(
        tls: Option<Arc<ServerConfig>>,
        proxy_protocol: Option<ProxyProtocol>,
        handshake_timeout: Duration,
        timeouts: IntCounter,
    ) -> Self {
        Self { tls, proxy_protocol, handshake_timeout, timeouts }
    }

    /// Prepares one socket and recognizes its protocol.
    ///
    /// # Errors
    /// Fails when the socket breaks, when the PROXY protocol header or the TLS handshake is
    /// invalid, or after `handshake_timeout`. The peer gets no answer, since its protocol is not
    /// known yet.
    pub(crate) async fn accept(self, mut io: TcpStream) -> io::Result<Accepted> {
        let mut peer = io.peer_addr().ok();
        let handshake = async {
            if let Some(proxy_protocol) = &self.proxy_protocol {
                peer = proxy_protocol.read_source(&mut io).await?.or(peer);
            }
            match &self.tls {
                Some(tls) => tls_handshake(Arc::clone(tls), io).await,
                None => read_preface(io).await,
            }
        };
        let Ok(negotiated) = timeout(self.handshake_timeout, handshake).await else {
            self.timeouts.inc();
            return Err(io::ErrorKind::TimedOut.into());
        };
        let (transport, ahead, is_http2) = negotiated?;
        Ok(Accepted { transport, ahead, is_http2, peer })
    }
}

/// Sets the options of the sockets that the listener `socket` will accept. Must be called before
/// the socket listens. Linux copies the options of a listener to each accepted socket, which saves
/// five system calls for each connection. The kernel drops a peer that acknowledges nothing for
/// `write_timeout`, or keeps its window closed for so long.
///
/// # Errors
/// Fails when the kernel refuses an option.
pub(crate) fn set_options(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    // Events are small and must leave at once. Nagle's algorithm holds them for up to 40 ms.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

/// Transport, first bytes of the connection, and whether it speaks HTTP/2.
type Negotiated = (Transport, Bytes, bool);

/// Does the TLS handshake. ALPN determines the protocol.
async fn tls_handshake(tls: Arc<ServerConfig>, io: TcpStream) -> io::Result<Negotiated> {
    let stream = TlsStream::accept(tls, io).await?;
    let is_http2 = stream.alpn_protocol() == Some(b"h2");
    Ok((Transport::Tls(stream), Bytes::new(), is_http2))
}

/// Reads until the bytes differ from the HTTP/2 preface or begin with it. HTTP/1 differs in its
/// first or second byte, so its peers do not wait. Mostly the first read returns the whole head of
/// the first request.
async fn read_preface(mut io: TcpStream) -> io::Result<Negotiated> {
    let mut ahead = BytesMut::new();
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
        if poll_fn(|cx| poll_read(&mut io, cx, &mut ahead)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let is_http2 = ahead.starts_with(PREFACE);
    Ok((Transport::Plain(io), ahead.freeze(), is_http2))
}

/// Reads available bytes, and appends them to `ahead`. Returns their number, which is 0 at the end.
/// The buffer is on the stack, so a connection whose peer sends nothing keeps none.
fn poll_read(
    io: &mut TcpStream,
    cx: &mut Context<'_>,
    ahead: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut buffer = [MaybeUninit::uninit(); FIRST_READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    ahead.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::{Domain, SockRef, Type};

    use super::*;

    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let write_timeout = Duration::from_secs(7);
        set_options(&listener, write_timeout).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let listener = TcpListener::from(listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(write_timeout));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_MAX_BYTES);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), TCP_KEEPALIVE);
    }
}
