//! What comes in on a connection: heads and bodies.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    Request, ServiceConfig,
    error::PayloadError,
    h1::{Codec, Message, MessageType},
};
use actix_web::{
    http::{ConnectionType, Version},
    rt::net::TcpStream,
};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use memchr::memmem;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::{codec::Decoder as _, io::poll_read_buf};

use super::Crowd;
use crate::connection::{Head, IDLE_MAX};

/// A connection, and what was read of it and not yet used.
pub(super) struct Wire {
    pub(super) io: TcpStream,
    pub(super) read: BytesMut,
    pub(super) codec: Codec,
    head_time: Duration,
    /// Moved only when it would fire too late, and looked at anew when it fires too early.
    timer: Pin<Box<Sleep>>,
    /// What of a head is coming in.
    coming: Head,
    /// Whether it waits for the first head, which begins with the connection.
    is_first: bool,
}

/// What was heard.
pub(super) enum Heard {
    /// A request, and its head as it came. Its body is still to be read.
    Request { request: Box<Request>, head: BytesMut },
    /// What is not for us. It was not used.
    Odd,
    /// A head that takes too long.
    Slow,
    /// The peer has gone, or said nothing for as long as a connection is kept.
    Nothing,
}

/// What a head may have: as actix takes it.
const HEAD_MAX_BYTES: usize = 128 * 1024;
/// So much is read at once of heads, which seldom have more, and of bodies.
const HEAD_READ_BYTES: usize = 4 * 1024;
const BODY_READ_BYTES: usize = 64 * 1024;

impl Wire {
    pub(super) fn new(
        io: TcpStream,
        ahead: Bytes,
        config: &ServiceConfig,
        head_time: Duration,
        coming: Head,
    ) -> Self {
        let codec = Codec::new(config.clone());
        let timer = Box::pin(sleep(head_time));
        Self { io, read: ahead.into(), codec, head_time, timer, coming, is_first: true }
    }

    /// The next request.
    pub(super) async fn hear(&mut self, crowd: &Crowd) -> Heard {
        let begun = Instant::now();
        let mut head_since = (self.is_first || !self.read.is_empty()).then_some(begun);
        let mut looked = 0;
        loop {
            match head_end(&self.read, looked) {
                Some(Ok(end)) => {
                    self.is_first = false;
                    self.coming.end();
                    return self.read_head(end);
                }
                Some(Err(())) => return Heard::Odd,
                None if HEAD_MAX_BYTES < self.read.len() => return Heard::Odd,
                None if !self.coming.grow(self.read.len() - looked) => return Heard::Nothing,
                None => looked = self.read.len(),
            }
            // An empty line between requests is none.
            if head_since.is_none() && self.read.iter().any(|byte| !b"\r\n".contains(byte)) {
                head_since = Some(Instant::now());
            }
            let deadline = head_since.map_or(begun + IDLE_MAX, |since| since + self.head_time);
            if self.read.is_empty() {
                // Nothing is kept for a connection on which nothing is going on.
                self.read = BytesMut::new();
                let readable = tokio::select! {
                    biased;
                    readable = self.readable_before(deadline) => readable,
                    () = crowd.has_to_go(), if !self.is_first => return Heard::Nothing,
                };
                if !readable {
                    return if self.is_first { Heard::Slow } else { Heard::Nothing };
                }
            } else if !self.readable_before(deadline).await {
                return if head_since.is_some() { Heard::Slow } else { Heard::Nothing };
            }
            self.read.reserve(HEAD_READ_BYTES);
            match self.io.try_read_buf(&mut self.read) {
                Ok(0) => return Heard::Nothing,
                Err(err) if err.kind() != io::ErrorKind::WouldBlock => return Heard::Nothing,
                _ => {}
            }
        }
    }

    async fn readable_before(&mut self, deadline: Instant) -> bool {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            tokio::select! {
                biased;
                ready = self.io.readable() => return ready.is_ok(),
                () = self.timer.as_mut() => {}
            }
            if deadline <= Instant::now() {
                return false;
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Reads the head of which `end` is the end.
    fn read_head(&mut self, end: usize) -> Heard {
        let head = self.read.split_to(end);
        let mut left = head.clone();
        let odd = match self.codec.decode(&mut left) {
            Ok(Some(Message::Item(request))) if left.is_empty() && self.is_plain(&request) => {
                return Heard::Request { request: Box::new(request), head };
            }
            _ => Heard::Odd,
        };
        let rest = std::mem::replace(&mut self.read, head);
        self.read.unsplit(rest);
        odd
    }

    fn is_plain(&self, request: &Request) -> bool {
        let head = request.head();
        head.version == Version::HTTP_11
            && !head.expect()
            && head.connection_type() != ConnectionType::Upgrade
            && self.codec.message_type() != MessageType::Stream
    }

    /// Whether something of the request's body has not been read.
    pub(super) fn has_body(&self) -> bool {
        self.codec.message_type() != MessageType::None
    }

    /// Whether a stream can have the socket alone: nothing else has come, and it goes on after it.
    pub(super) fn can_be_left(&self) -> bool {
        self.read.is_empty() && !self.has_body() && self.codec.keep_alive()
    }

    /// The next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            match self.codec.decode(&mut self.read) {
                Ok(Some(Message::Chunk(chunk))) => return Poll::Ready(chunk.map(Ok)),
                Ok(None) => {}
                // What follows a body is the next request.
                Ok(Some(Message::Item(_))) => return Poll::Ready(None),
                Err(err) => return Poll::Ready(Some(Err(io::Error::other(err).into()))),
            }
            self.read.reserve(BODY_READ_BYTES);
            let read = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read))?;
            if read == 0 {
                return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
            }
        }
    }

    /// Reads on for as long as something comes, for nothing.
    pub(super) async fn discard(&mut self) {
        let mut nowhere = [0; 4096];
        loop {
            let mut into = ReadBuf::new(&mut nowhere);
            let read = std::future::poll_fn(|cx| pin!(&mut self.io).poll_read(cx, &mut into)).await;
            if read.is_err() || into.filled().is_empty() {
                return;
            }
        }
    }
}

/// Where the head ends, if it is there. An error if it is none of ours: lines may end with a bare
/// LF ([RFC 9112, section 2.2](https://www.rfc-editor.org/rfc/rfc9112#section-2.2)), and seldom do.
fn head_end(read: &[u8], looked: usize) -> Option<Result<usize, ()>> {
    let bare = |at: usize| at == 0 || read.get(at - 1) != Some(&b'\r');
    if memchr::memchr(b'\n', read).is_some_and(bare) {
        return Some(Err(()));
    }
    let from = looked.saturating_sub(3);
    let found = memmem::find(read.get(from..)?, b"\r\n\r\n")?;
    Some(Ok(from + found + 4))
}

/// The body of a request, read when it is asked for.
pub(super) struct Body(Rc<RefCell<Option<Wire>>>);

impl Body {
    pub(super) fn new(wire: Rc<RefCell<Option<Wire>>>) -> Self {
        Self(wire)
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self.0.borrow_mut() {
            Some(wire) if wire.has_body() => wire.poll_body(cx),
            _ => Poll::Ready(None),
        }
    }
}
