//! Stall detector: finds the writers of one worker whose peer takes nothing for `--write-timeout`.
//! These are the sockets of HTTP/1.1 and HTTP/2, with and without TLS, the streams of the reactor,
//! and the flow-control windows of HTTP/2, each of which can be closed while its socket is not.
//!
//! A stall is an [`io::ErrorKind::TimedOut`]. The kernel reports the same error for a peer that
//! acknowledges nothing (`TCP_USER_TIMEOUT`), so a connection that it drops counts as stalled too.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// List of the blocked writers of one worker.
#[derive(Debug)]
pub(crate) struct StallDetector {
    write_timeout: Duration,
    blocked: RefCell<Slab<Blocked>>,
    /// Notified when a writer is blocked.
    begun: Notify,
}

/// Writer whose peer takes nothing.
#[derive(Debug)]
struct Blocked {
    since: Instant,
    waker: Waker,
}

/// Entry of a blocked writer, removed on drop. A writer that makes progress needs a new entry.
#[derive(Debug)]
pub(crate) struct BlockedWriter {
    detector: Rc<StallDetector>,
    key: usize,
}

/// Watch over one writer: turns a write that is pending for too long into an error.
#[derive(Debug)]
pub(crate) struct WriteWatch {
    detector: Rc<StallDetector>,
    blocked: Option<BlockedWriter>,
}

/// Longest time between two searches for stalled writers.
const TICK_MAX: Duration = Duration::from_millis(500);

impl StallDetector {
    /// Creates a detector without writers. [`StallDetector::run`] must run on the same thread.
    pub(crate) fn new(write_timeout: Duration) -> Rc<Self> {
        Rc::new(Self { write_timeout, blocked: RefCell::default(), begun: Notify::new() })
    }

    /// Adds a blocked writer. `waker` is called when the writer is stalled.
    pub(crate) fn add(self: &Rc<Self>, waker: Waker) -> BlockedWriter {
        let key = self.blocked.borrow_mut().insert(Blocked { since: Instant::now(), waker });
        self.begun.notify_one();
        BlockedWriter { detector: Rc::clone(self), key }
    }

    /// Wakes stalled writers. Never returns. It sleeps while no writer is blocked.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            if self.blocked.borrow().is_empty() {
                self.begun.notified().await;
            }
            sleep((self.write_timeout / 4).min(TICK_MAX)).await;
            let now = Instant::now();
            for (_, blocked) in self.blocked.borrow().iter() {
                if self.is_stalled(blocked, now) {
                    blocked.waker.wake_by_ref();
                }
            }
        }
    }

    fn is_stalled(&self, blocked: &Blocked, now: Instant) -> bool {
        self.write_timeout <= now.duration_since(blocked.since)
    }
}

impl BlockedWriter {
    /// Returns true if the writer has been blocked for the write timeout.
    pub(crate) fn is_stalled(&self) -> bool {
        let blocked = self.detector.blocked.borrow();
        blocked.get(self.key).is_some_and(|it| self.detector.is_stalled(it, Instant::now()))
    }

    /// Sets the waker that is called when the writer is stalled.
    fn set_waker(&self, waker: &Waker) {
        if let Some(blocked) = self.detector.blocked.borrow_mut().get_mut(self.key) {
            blocked.waker.clone_from(waker);
        }
    }
}

impl Drop for BlockedWriter {
    fn drop(&mut self) {
        self.detector.blocked.borrow_mut().try_remove(self.key);
    }
}

impl WriteWatch {
    /// Creates the watch of a writer that is not blocked.
    pub(crate) fn new(detector: &Rc<StallDetector>) -> Self {
        Self { detector: Rc::clone(detector), blocked: None }
    }

    /// Polls a write.
    ///
    /// # Errors
    /// Returns [`io::ErrorKind::TimedOut`] if the write has been pending for the write timeout.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(cx) {
            self.blocked = None;
            return Poll::Ready(Ok(written));
        }
        match &self.blocked {
            Some(blocked) if blocked.is_stalled() => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Some(blocked) => blocked.set_waker(cx.waker()),
            None => self.blocked = Some(self.detector.add(cx.waker().clone())),
        }
        Poll::Pending
    }

    /// Records that a pending write has written a part: its time begins again.
    pub(crate) fn record_progress(&mut self) {
        self.blocked = None;
    }
}

/// Returns true if an error means that the peer took nothing for too long.
pub(crate) fn is_stall(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::TimedOut
}

thread_local! {
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// Drops the body of a response whose reader is stalled. [`is_dropping_stalled`] is true meanwhile,
/// so that the body can count the reason for its end. A body has no other way to learn it.
pub(crate) fn drop_stalled<T>(body: T) {
    IS_DROPPING.set(true);
    drop(body);
    IS_DROPPING.set(false);
}

/// Returns true while this thread drops a body in [`drop_stalled`].
pub(crate) fn is_dropping_stalled() -> bool {
    IS_DROPPING.get()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn poll(watch: &mut WriteWatch, mut write: impl FnMut() -> Poll<()>) -> io::Result<()> {
        poll_fn(|cx| watch.poll(cx, |_| write())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_write_fails_after_the_timeout_and_progress_begins_it_again() {
        let detector = StallDetector::new(Duration::from_secs(10));
        let mut watch = WriteWatch::new(&detector);
        let tested = async {
            let begun = Instant::now();
            let err = poll(&mut watch, || Poll::Pending).await.unwrap_err();
            assert!(is_stall(&err));
            let lasted = begun.elapsed();
            assert!(detector.write_timeout <= lasted && lasted < detector.write_timeout * 2);
            assert!(poll(&mut watch, || Poll::Ready(())).await.is_ok());
            assert!(detector.blocked.borrow().is_empty(), "a writer that goes on has no entry");
            let part = tokio::time::timeout(detector.write_timeout / 2, async {
                poll(&mut watch, || Poll::Pending).await
            });
            assert!(part.await.is_err(), "it is still pending");
            watch.record_progress();
            let begun = Instant::now();
            assert!(poll(&mut watch, || Poll::Pending).await.is_err());
            assert!(detector.write_timeout <= begun.elapsed());
        };
        tokio::select! {
            () = tested => {}
            () = Rc::clone(&detector).run() => {}
        }
    }
}
