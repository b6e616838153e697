//! A certificate for localhost, made for this run, and a bridge for clients without TLS.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

pub struct Certificate {
    _folder: TempDir,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { _folder: folder, cert, key }
    }

    /// A client that trusts this certificate alone, and offers these protocols.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// An address whose connections go on to a gateway over TLS, so that any client can be used with it.
pub struct Bridge {
    pub address: SocketAddr,
    _certificate: Certificate,
    _stop: oneshot::Sender<()>,
}

impl Bridge {
    /// A bridge to `to`, which has this certificate. It speaks HTTP/1.1.
    pub fn start(certificate: Certificate, to: SocketAddr) -> Self {
        let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::spawn(async move {
                    while let Ok((client, _)) = listener.accept().await {
                        tokio::spawn(pass_on(client, connector.clone(), to));
                    }
                });
                drop(stopped.await);
            });
        });
        Self { address, _certificate: certificate, _stop: stop }
    }
}

/// What the kernel may hold on each side of a bridge.
const BUFFER_BYTES: u32 = 64 * 1024;

/// Passes bytes on until either side has ended.
async fn pass_on(
    mut client: TcpStream,
    connector: TlsConnector,
    to: SocketAddr,
) -> std::io::Result<()> {
    let server = TcpSocket::new_v4()?;
    // A client that reads nothing is soon a bridge that reads nothing.
    server.set_recv_buffer_size(BUFFER_BYTES)?;
    socket2::SockRef::from(&client).set_send_buffer_size(BUFFER_BYTES as usize)?;
    let server = server.connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let name = "localhost".try_into().unwrap();
    let mut server = connector.connect(name, server).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
