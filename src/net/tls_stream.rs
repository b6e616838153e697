//! TLS stream: the server side of a TLS connection whose buffers are those of its thread. The
//! buffered API of rustls, on which `tokio-rustls` stands, keeps a read buffer of 4 KiB for each
//! connection. An idle stream has only the state of the connection: its keys, and some counters.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use rustls::{
    ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Server side of a TLS connection.
pub(crate) struct TlsStream {
    io: TcpStream,
    tls: UnbufferedServerConnection,
    /// Received bytes that are no complete record yet.
    received: Vec<u8>,
    /// Decrypted bytes that were not read yet.
    decrypted: BytesMut,
    /// Encrypted bytes that the socket did not take yet.
    encrypted: BytesMut,
    /// True if the peer sends nothing more.
    is_ended: bool,
    /// True if the peer was told that nothing more is sent.
    is_closing: bool,
    /// True if the socket took bytes since this field was last read.
    has_progress: bool,
}

/// Size of the buffer for received bytes. It is the limit of an incomplete handshake message.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Number of bytes that are encrypted at once: those of a record.
const RECORD_BYTES: usize = 16 * 1024;
/// First size of the buffer for encrypted bytes: a record with its header and tag.
const ENCRYPT_BYTES: usize = RECORD_BYTES + 512;

/// Buffers of a thread.
struct Buffers {
    received: Vec<u8>,
    encrypted: Vec<u8>,
    /// Bytes of several slices that are written together.
    gathered: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        received: vec![0; RECEIVE_BYTES],
        encrypted: vec![0; ENCRYPT_BYTES],
        gathered: Vec::new(),
    });
}

impl TlsStream {
    /// Does the handshake.
    ///
    /// # Errors
    /// Fails when the socket breaks or the handshake is invalid.
    pub(crate) async fn accept(config: Arc<ServerConfig>, io: TcpStream) -> io::Result<Box<Self>> {
        let mut stream = Box::new(Self {
            io,
            tls: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            received: Vec::new(),
            decrypted: BytesMut::new(),
            encrypted: BytesMut::new(),
            is_ended: false,
            is_closing: false,
            has_progress: false,
        });
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.is_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Returns the protocol that was negotiated with ALPN.
    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Returns true if the socket took bytes since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// Reads from the socket, and decrypts.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        BUFFERS.with_borrow_mut(|Buffers { received: buffer, .. }| {
            let held = self.received.len();
            let (before, free) = buffer.split_at_mut_checked(held).unwrap_or_default();
            if free.is_empty() {
                let err = "a handshake message of TLS is too large";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, err)));
            }
            let mut into = ReadBuf::new(free);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            let new = into.filled().len();
            if new == 0 {
                self.is_ended = true;
                return Poll::Ready(Ok(()));
            }
            before.copy_from_slice(&self.received);
            let bytes = buffer.get_mut(..held + new).unwrap_or_default();
            let processed = self.process(bytes, |_| Ok(()));
            // TLS may have encrypted a message, such as an alert. The read does not wait until the
            // socket takes it.
            let _sent = self.poll_send(cx)?;
            let rest = bytes.get(processed?..).unwrap_or_default();
            // Allocates nothing if there is no rest.
            self.received = rest.to_vec();
            Poll::Ready(Ok(()))
        })
    }

    /// Processes received bytes until more are needed. Then calls `write`, if data can be written.
    /// Returns the number of bytes that are used up.
    fn process(
        &mut self,
        bytes: &mut [u8],
        mut write: impl FnMut(WriteTraffic<'_, ServerConnectionData>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let left = bytes.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(left);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        self.decrypted.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.encrypted)?,
                // The bytes are sent before all that are encrypted later.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => return write(traffic).map(|()| used),
                Ok(ConnectionState::Closed) => {
                    self.is_ended = true;
                    return Ok(used);
                }
                // Early data is not offered.
                Ok(_) => return Ok(used),
                Err(err) => {
                    // The alert that tells the peer of the error.
                    let left = bytes.get_mut(used..).unwrap_or_default();
                    let status = self.tls.process_tls_records(left);
                    if let Ok(ConnectionState::EncodeTlsData(data)) = status.state {
                        encode(data, &mut self.encrypted)?;
                    }
                    return Err(invalid(err));
                }
            }
        }
    }

    /// Encrypts `data`, or the end of all data if it is `None`. Sends what the socket takes now,
    /// and keeps the rest.
    fn write_encrypted(&mut self, cx: &mut Context<'_>, data: Option<&[u8]>) -> io::Result<()> {
        BUFFERS.with_borrow_mut(|Buffers { encrypted: buffer, .. }| {
            let mut len = 0;
            let mut received = std::mem::take(&mut self.received);
            let processed = self.process(&mut received, |mut traffic| {
                len = loop {
                    let encrypted = match data {
                        Some(data) => traffic.encrypt(data, buffer),
                        None => traffic.queue_close_notify(buffer),
                    };
                    match encrypted {
                        Ok(len) => break len,
                        Err(EncryptError::InsufficientSize(size)) => {
                            buffer.resize(size.required_size, 0);
                        }
                        Err(err) => return Err(io::Error::other(err)),
                    }
                };
                Ok(())
            });
            received.drain(..processed?.min(received.len()));
            self.received = received;
            // Messages of TLS itself go first: they were encrypted first.
            let _sent = self.poll_send(cx)?;
            let mut bytes = buffer.get(..len).unwrap_or_default();
            if self.encrypted.is_empty()
                && let Poll::Ready(sent) = Pin::new(&mut self.io).poll_write(cx, bytes)
            {
                bytes = bytes.get(sent?..).unwrap_or_default();
                self.has_progress = true;
            }
            self.encrypted.extend_from_slice(bytes);
            Ok(())
        })
    }

    /// Sends the encrypted bytes that the socket did not take before.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.encrypted.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.encrypted))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.encrypted.advance(sent);
            self.has_progress = true;
        }
        // Frees the buffer.
        self.encrypted = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

/// Appends a message of TLS to `to`.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, to: &mut BytesMut) -> io::Result<()> {
    let start = to.len();
    loop {
        match data.encode(to.get_mut(start..).unwrap_or_default()) {
            Ok(len) => {
                to.truncate(start + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => to.resize(start + size.required_size, 0),
            Err(err) => return Err(io::Error::other(err)),
        }
    }
}

fn invalid(err: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.decrypted.is_empty() && !this.is_ended {
            ready!(this.poll_receive(cx))?;
        }
        let part = this.decrypted.split_to(this.decrypted.len().min(buffer.remaining()));
        buffer.put_slice(&part);
        if this.decrypted.is_empty() {
            // Frees the buffer.
            this.decrypted = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if this.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = bytes.get(..RECORD_BYTES).unwrap_or(bytes);
        this.write_encrypted(cx, Some(part))?;
        Poll::Ready(Ok(part.len()))
    }

    /// Writes several slices in one record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = BUFFERS.with_borrow_mut(|it| std::mem::take(&mut it.gathered));
        gathered.clear();
        for slice in slices {
            let room = RECORD_BYTES - gathered.len();
            gathered.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        let written = self.poll_write(cx, &gathered);
        BUFFERS.with_borrow_mut(|it| it.gathered = gathered);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closing {
            this.is_closing = true;
            this.write_encrypted(cx, None)?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).finish_non_exhaustive()
    }
}
