//! HTTP/1.1 in clear text: the requests of a connection, one after the other, with actix' codec and
//! without the two buffers of 8 KiB that its dispatcher keeps for each connection. A stream leaves
//! this altogether: its socket goes to [`Lean`], and comes back when the stream has ended.
//!
//! What is odd goes to actix as it came, with all that follows on its connection: heads that cannot
//! be read, HTTP/1.0, upgrades, `Expect`.

mod wire;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use actix_http::{HttpMessage as _, Payload, Request, Response, ServiceConfig, h1::Message};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    http::Method,
    rt::net::TcpStream,
};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use prometheus::IntCounter;
use tokio::{io::AsyncWriteExt as _, sync::Notify, time::timeout};
use tokio_util::codec::Encoder as _;
use wire::{Body, Heard, Wire};

use crate::{
    connection::Heads,
    counts::One,
    outlet::lean::{Hatch, Lean, Left},
};

/// How connections are served.
pub struct Http1<S> {
    pub front: Rc<S>,
    pub config: ServiceConfig,
    pub head_time: Duration,
    /// Counts the heads that took longer.
    pub slow_heads: IntCounter,
    /// A peer that takes nothing for so long is let go.
    pub stall: Duration,
    pub lean: Rc<Lean>,
    pub heads: Heads,
    /// Serves what is odd.
    pub actix: Box<dyn Fn(TcpStream, Bytes, Option<SocketAddr>) -> LocalBoxFuture<'static, ()>>,
    pub crowd: Rc<Crowd>,
}

/// Whose a connection is.
#[derive(Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Kept until the connection ends.
    pub counted: Option<One<IpAddr>>,
}

/// What becomes of a connection after a request.
enum After {
    GoesOn(Wire),
    Over,
}

/// The head of a response seldom has more.
const HEAD_BYTES: usize = 512;
/// Of a response so much is put together before it is written.
const WRITE_BYTES: usize = 16 * 1024;
/// After the last response, for what the peer still sends to be read: closing over unread bytes
/// would reset the connection, and take the response with it.
const LINGER: Duration = Duration::from_secs(1);

impl<S> fmt::Debug for Http1<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("crowd", &self.crowd).finish_non_exhaustive()
    }
}

impl<S> Http1<S>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    /// Serves a connection on which `ahead` came already.
    pub async fn serve(self: Rc<Self>, io: TcpStream, ahead: Bytes, peer: Box<Peer>) {
        let _one = self.crowd.enter();
        let mut wire = Wire::new(io, ahead, &self.config, self.head_time, self.heads.head());
        let mut peer = Some(peer);
        loop {
            match wire.hear(&self.crowd).await {
                Heard::Request { request, head } => {
                    match self.answer(wire, *request, head, &mut peer).await {
                        Ok(After::GoesOn(next)) => wire = next,
                        Ok(After::Over) => return,
                        Err(err) => return tracing::debug!(error = %err, "connection failed"),
                    }
                }
                Heard::Odd => {
                    let address = peer.as_ref().and_then(|peer| peer.address);
                    return (self.actix)(wire.io, wire.read.freeze(), address).await;
                }
                Heard::Slow => return self.slow_heads.inc(),
                Heard::Nothing => return,
            }
        }
    }

    async fn answer(
        &self,
        wire: Wire,
        mut request: Request,
        head: BytesMut,
        peer: &mut Option<Box<Peer>>,
    ) -> io::Result<After> {
        let address = peer.as_ref().and_then(|peer| peer.address);
        request.head_mut().peer_addr = address;
        let is_events = request.method() == Method::GET && request.path() == "/events";
        if is_events && !wire.can_be_left() {
            let bytes = [head, wire.read].concat().into();
            (self.actix)(wire.io, bytes, address).await;
            return Ok(After::Over);
        }
        let hatch = is_events.then(Rc::<Hatch>::default);
        if let Some(hatch) = &hatch {
            request.extensions_mut().insert(Rc::clone(hatch));
        }
        let has_body = wire.has_body();
        let wire = Rc::new(RefCell::new(Some(wire)));
        if has_body {
            *request.payload() = Payload::Stream { payload: Box::pin(Body::new(Rc::clone(&wire))) };
        }
        let Ok(response) = self.front.call(request).await;
        // Whoever kept the body reads no more of it.
        let Some(mut wire) = wire.take() else { return Ok(After::Over) };
        match hatch.map(|hatch| hatch.take()) {
            Some(Left::Passed) => {
                let bytes = [head, wire.read].concat().into();
                (self.actix)(wire.io, bytes, address).await;
                Ok(After::Over)
            }
            Some(Left::Stream(subscribed)) => {
                let mut out = BytesMut::with_capacity(HEAD_BYTES);
                let (head, _) = response.into_parts();
                wire.codec.encode(Message::Item((head, BodySize::Stream)), &mut out)?;
                let io = wire.io.into_std()?;
                // Most connections come from where they say, and are not counted.
                let known = |peer: &Peer| peer.counted.is_none() && io.peer_addr().ok() == address;
                let peer = peer.take().filter(|peer| !known(peer));
                let peer = peer.map(|peer| -> Box<dyn std::any::Any> { peer });
                self.lean.take_in(io, out.freeze(), *subscribed, peer)?;
                Ok(After::Over)
            }
            Some(Left::Nothing) | None => self.respond(wire, response).await,
        }
    }

    async fn respond(&self, mut wire: Wire, response: Response<BoxBody>) -> io::Result<After> {
        let (head, body) = response.into_parts();
        let size = body.size();
        let mut out = BytesMut::new();
        wire.codec.encode(Message::Item((head, size)), &mut out)?;
        if !matches!(size, BodySize::None | BodySize::Sized(0)) {
            let mut body = pin!(body);
            while let Some(chunk) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
                let chunk = chunk.map_err(|err| io::Error::other(err.to_string()))?;
                wire.codec.encode(Message::Chunk(Some(chunk)), &mut out)?;
                if WRITE_BYTES <= out.len() {
                    self.write(&mut wire.io, &out).await?;
                    out.clear();
                }
            }
            wire.codec.encode(Message::Chunk(None), &mut out)?;
        }
        self.write(&mut wire.io, &out).await?;
        if wire.codec.keep_alive() && !wire.has_body() {
            return Ok(After::GoesOn(wire));
        }
        wire.io.shutdown().await?;
        drop(timeout(LINGER, wire.discard()).await);
        Ok(After::Over)
    }

    async fn write(&self, io: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        timeout(self.stall, io.write_all(bytes)).await?
    }
}

/// The connections of a worker that are no streams. When there are many, each new one makes the one
/// that has been idle for longest go.
#[derive(Debug)]
pub struct Crowd {
    /// So many may be there before one has to go.
    pub room: usize,
    /// Counts those that had to.
    pub crowded_out: IntCounter,
    here: Cell<usize>,
    idle: Cell<usize>,
    /// Wakes the one that has waited for longest.
    go: Notify,
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
struct Here<'a>(&'a Cell<usize>);

impl<'a> Here<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Crowd {
    pub fn new(room: usize, crowded_out: IntCounter) -> Self {
        let (here, idle) = (Cell::new(0), Cell::new(0));
        Self { room, crowded_out, here, idle, go: Notify::new() }
    }

    fn enter(&self) -> Here<'_> {
        let here = Here::new(&self.here);
        if self.room < self.here.get() && 0 < self.idle.get() {
            self.crowded_out.inc();
            self.go.notify_one();
        }
        here
    }

    /// Waits until this one has to go.
    async fn has_to_go(&self) {
        let _idle = Here::new(&self.idle);
        self.go.notified().await;
    }
}
