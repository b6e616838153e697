//! Driver of a WebSocket: a task that reads from its socket and writes to it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::future::LocalBoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    command,
    connection::{Connection, Step},
    effect::CommandResult,
};
use crate::net::stall::is_stall;

/// Number of bytes read at once.
pub(super) const READ_BYTES: usize = 4 * 1024;
/// Number of steps after which other tasks of the thread run.
const STEPS_PER_TURN: usize = 32;
/// Time for which bytes are still read after the end. A close over unread bytes would reset the
/// connection, and the client could lose the close frame.
const LINGER: Duration = Duration::from_secs(5);

/// Connection and its socket.
struct Driver<'a, S> {
    io: &'a mut S,
    connection: &'a mut Connection,
    /// Bytes that the socket did not take yet.
    out: Bytes,
    /// Command that waits for its result.
    running: Option<LocalBoxFuture<'static, CommandResult>>,
    timer: Pin<Box<Sleep>>,
    ends_idle: bool,
}

/// State in which a driver leaves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driven {
    /// It has one stream and waits for its events, and nothing else is to be done.
    Idle,
    /// It was closed.
    Closed,
}

/// Drives a connection to its end, or until it is idle if `ends_idle`. `out` is written first.
///
/// # Errors
/// Fails when the socket breaks, or its peer takes nothing for too long.
pub(super) async fn drive<S>(
    io: &mut S,
    connection: &mut Connection,
    out: Bytes,
    ends_idle: bool,
) -> io::Result<Driven>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let timer = Box::pin(sleep_until(Instant::now()));
    let mut driver = Driver { io, connection, out, running: None, timer, ends_idle };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    let Driver { io, connection, .. } = driver;
    if ended.as_ref().is_err_and(is_stall) {
        connection.mark_stalled();
    }
    if ended? == Driven::Idle {
        return Ok(Driven::Idle);
    }
    poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await?;
    let discard = poll_fn(|cx| poll_discard(io, cx));
    drop(timeout(LINGER, discard).await);
    Ok(Driven::Closed)
}

/// Reads and drops bytes until the peer closes its side.
fn poll_discard(io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Driven>> {
        for _ in 0..STEPS_PER_TURN {
            // Commands come first, also while the socket takes nothing: a command can hold a turn
            // of the worker, for which other commands wait.
            self.poll_command(cx);
            ready!(self.poll_write(cx))?;
            let wants_input = self.connection.wants_input();
            let is_read = wants_input && self.poll_read(cx)?.is_ready();
            let now = Instant::now();
            match self.connection.next(now, cx.waker()) {
                Step::Write(bytes) => self.out = bytes,
                // What was read may have to be answered, and there may be more to read.
                Step::WaitUntil(_) if is_read => {}
                Step::WaitUntil(_) if self.is_idle() => return Poll::Ready(Ok(Driven::Idle)),
                Step::WaitUntil(due) => {
                    if due != self.timer.deadline() {
                        self.timer.as_mut().reset(due);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                }
                Step::Yield => break,
                Step::Close => return Poll::Ready(Ok(Driven::Closed)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns true if the connection may be left idle.
    fn is_idle(&self) -> bool {
        self.ends_idle && self.running.is_none() && self.connection.is_idle()
    }

    /// Writes all of `out`.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut *self.io).poll_write(cx, &self.out) else {
                self.connection.mark_blocked();
                return Poll::Pending;
            };
            match written? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.out.advance(taken),
            }
        }
        self.out = Bytes::new();
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    /// Reads available bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        if Pin::new(&mut *self.io).poll_read(cx, &mut buffer)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if buffer.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.connection.receive(buffer.filled(), Instant::now());
        Ok(Poll::Ready(()))
    }

    /// Runs the commands of the client, one after another.
    fn poll_command(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(running) = &mut self.running {
                let Poll::Ready(finished) = running.as_mut().poll(cx) else { return };
                self.running = None;
                self.connection.finish(finished, Instant::now());
            }
            let Some(text) = self.connection.take_command(Instant::now()) else { return };
            self.running = Some(Box::pin(command::run(self.connection.client(), text)));
        }
    }
}
