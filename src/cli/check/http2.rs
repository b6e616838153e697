//! Check of HTTP/2: a browser opens at most six connections of HTTP/1.1 to a host, and each stream
//! takes one of them.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use reqwest::Url;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use tokio::{sync::oneshot, time::timeout};

use crate::cli::check::{
    finding::Finding,
    probe::{ANSWER_MAX, Probe},
    settings::HTTP2,
};

const CHECK: &str = "http2";

/// Limit on the time of each step: a connection, a read, a write.
const STEP_MAX: Duration = Duration::from_secs(3);

/// Preface of a client ([RFC 9113, section
/// 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)), with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Type of a SETTINGS frame, the first frame of a server.
const SETTINGS: u8 = 4;

/// Asks for HTTP/2: by ALPN over TLS as browsers do, and in clear text with a preface.
pub(super) async fn check(probe: &Probe) -> Finding {
    let url = probe.target.stream.clone();
    let is_tls = url.scheme() == "https";
    let (send, receive) = oneshot::channel();
    // The steps block, so they run on a thread of their own, which ends with the process at the
    // latest.
    std::thread::spawn(move || send.send(if is_tls { alpn(&url) } else { preface(&url) }).ok());
    let result = match timeout(ANSWER_MAX, receive).await {
        Ok(Ok(result)) => result,
        _ => Err(io::ErrorKind::TimedOut.into()),
    };
    match result {
        Err(err) => Finding::not_checked(CHECK, format!("no connection for this check: {err}")),
        Ok(true) if is_tls => Finding::good(CHECK, "clients get HTTP/2"),
        Ok(true) => Finding::good(CHECK, "clients that begin with HTTP/2 in clear text get it"),
        Ok(false) if is_tls => {
            let text = "clients get HTTP/1.1 only, and a browser then opens at most six streams to \
                        a host. Expected h2 in the TLS handshake (ALPN)";
            Finding::problem(CHECK, text, HTTP2)
        }
        Ok(false) => {
            let text = "no HTTP/2 in clear text, which browsers do not use: check the https:// URL";
            Finding::not_checked(CHECK, text)
        }
    }
}

/// Connects to the host of a URL.
fn connect(url: &Url) -> io::Result<TcpStream> {
    let port = url.port_or_known_default().unwrap_or(443);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host(url), port).to_socket_addrs()?.take(3) {
        match TcpStream::connect_timeout(&address, STEP_MAX) {
            Ok(socket) => {
                socket.set_read_timeout(Some(STEP_MAX))?;
                socket.set_write_timeout(Some(STEP_MAX))?;
                return Ok(socket);
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// Returns the host of a URL, without the brackets of an IPv6 address.
fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Returns true if the server chooses HTTP/2 in the TLS handshake. The server's choice comes before
/// its certificate. No certificate is trusted, so the handshake ends there, and no request is sent.
fn alpn(url: &Url) -> io::Result<bool> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(host(url).to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut socket = connect(url)?;
    let ended = tls.complete_io(&mut socket);
    match (tls.alpn_protocol(), ended) {
        (Some(protocol), _) => Ok(protocol == b"h2"),
        // The server sent its certificate, and had chosen no protocol.
        (None, Ok(_)) => Ok(false),
        (None, Err(err)) if err.kind() == io::ErrorKind::InvalidData => Ok(false),
        (None, Err(err)) => Err(err),
    }
}

/// Returns true if the server answers the preface with a SETTINGS frame.
fn preface(url: &Url) -> io::Result<bool> {
    let mut socket = connect(url)?;
    socket.write_all(PREFACE)?;
    let mut head = [0; 9];
    // A server without HTTP/2 closes the connection, or waits for more.
    Ok(socket.read_exact(&mut head).is_ok() && matches!(head, [_, _, _, SETTINGS, 0, 0, 0, 0, 0]))
}
