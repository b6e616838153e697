//! From an accepted socket to actix: options, TLS, and which HTTP it speaks.
//!
//! actix's own `listen_auto_h2c` looks for the HTTP/2 preface once and without a time limit, so a
//! peer that says nothing holds its place for ever, and a preface in two segments is not seen.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::TlsFiles,
    net::{connection::Transport, proxy_protocol::ProxyProtocol},
};

/// How sockets become connections.
#[expect(missing_debug_implementations, reason = "a TlsAcceptor has none")]
#[derive(Clone)]
pub struct Acceptor {
    tls: Option<TlsAcceptor>,
    proxy_protocol: Option<ProxyProtocol>,
    write_timeout: Duration,
    handshake_timeout: Duration,
    /// How many peers took longer.
    silent: IntCounter,
}

/// A connection that has said what it speaks.
#[derive(Debug)]
pub struct Accepted {
    pub transport: Transport,
    /// What was read to find out.
    pub ahead: Bytes,
    pub is_http2: bool,
    pub peer: Option<SocketAddr>,
}

/// How an HTTP/2 connection begins ([RFC 9113, section
/// 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The kernel takes no more bytes than this beyond what is on its way. Without it a stalled reader
/// pins up to 4 MB (`tcp_wmem`), and a slow one's socket takes nothing for a megabyte at a time,
/// which would look stalled. What is on its way is not bounded by it, so a fast far reader loses
/// nothing.
const UNSENT_MAX_BYTES: u32 = 64 * 1024;
/// An idle peer that is gone without a word (its network was cut) is noticed after about this.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

impl Acceptor {
    /// Plain HTTP without `tls`; with `proxy_protocol` every connection begins with its header.
    /// `silent` counts those who do not say in `handshake_timeout` what they want.
    pub fn new(
        tls: Option<Arc<ServerConfig>>,
        proxy_protocol: Option<ProxyProtocol>,
        write_timeout: Duration,
        handshake_timeout: Duration,
        silent: IntCounter,
    ) -> Self {
        Self {
            tls: tls.map(TlsAcceptor::from),
            proxy_protocol,
            write_timeout,
            handshake_timeout,
            silent,
        }
    }

    /// Prepares one socket.
    ///
    /// # Errors
    /// When the peer does not say in time what it wants. There is nobody to tell.
    pub async fn accept(self, mut io: TcpStream) -> io::Result<Accepted> {
        let mut peer = io.peer_addr().ok();
        self.set_options(&io)?;
        let hello = async {
            if let Some(proxy_protocol) = &self.proxy_protocol {
                peer = proxy_protocol.read_source(&mut io).await?.or(peer);
            }
            match &self.tls {
                Some(tls) => handshake(tls, io).await,
                None => read_preface(io).await,
            }
        };
        let Ok(said) = timeout(self.handshake_timeout, hello).await else {
            self.silent.inc();
            return Err(io::ErrorKind::TimedOut.into());
        };
        let (transport, ahead, is_http2) = said?;
        Ok(Accepted { transport, ahead, is_http2, peer })
    }

    fn set_options(&self, io: &TcpStream) -> io::Result<()> {
        // Events are small and must leave at once; Nagle's algorithm holds them for up to 40 ms.
        io.set_nodelay(true)?;
        let socket = SockRef::from(io);
        // A peer that acknowledges nothing, or keeps its window shut, is dropped by the kernel.
        socket.set_tcp_user_timeout(Some(self.write_timeout))?;
        socket.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
    }
}

type Said = (Transport, Bytes, bool);

async fn handshake(tls: &TlsAcceptor, io: TcpStream) -> io::Result<Said> {
    let io = tls.accept(io).await?;
    let is_http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
    let transport = Transport::Tls(Box::new(io));
    Ok((transport, Bytes::new(), is_http2))
}

/// Reads until it is clear whether this is HTTP/2 with prior knowledge. The first byte that differs
/// tells, so HTTP/1 is known from its first or second.
async fn read_preface(mut io: TcpStream) -> io::Result<Said> {
    let mut ahead = BytesMut::with_capacity(PREFACE.len());
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
        let left = PREFACE.len() - ahead.len();
        let mut part = (&mut io).take(left as u64);
        if part.read_buf(&mut ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let is_http2 = ahead == PREFACE;
    Ok((Transport::Plain(io), ahead.freeze(), is_http2))
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-cert: {0}: {1}")]
    Cert(String, #[source] rustls::pki_types::pem::Error),
    #[error("--tls-cert: {0}: there is no certificate in it (PEM, BEGIN CERTIFICATE)")]
    NoCertificate(String),
    #[error("--tls-key: {0}: {1}")]
    Key(String, #[source] rustls::pki_types::pem::Error),
    #[error("--tls-cert, --tls-key: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// When a file cannot be read or is not PEM, or the two do not belong together.
pub fn load_tls(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|err| TlsError::Cert(cert.clone(), err))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|err| TlsError::Key(key, err))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
