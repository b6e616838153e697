//! State of a task that follows the log into the rings: progress, lag and back-off.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::sync::Notify;

use crate::clock;

/// Progress of the follower, shared with the tasks that append to the log and serve readers.
#[derive(Debug)]
pub(crate) struct Progress {
    is_filled: AtomicBool,
    filled: Notify,
    /// Server that the log is read from. `None` while it is read from none.
    server: Mutex<Option<Arc<str>>>,
    reconnect: Notify,
    /// Time at which the follower last knew that it had read all entries, in Unix milliseconds; 0
    /// while it knows.
    behind_since_ms: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            is_filled: AtomicBool::new(false),
            filled: Notify::new(),
            server: Mutex::default(),
            reconnect: Notify::new(),
            behind_since_ms: AtomicU64::new(clock::now_ms()),
        }
    }
}

impl Progress {
    /// Returns true if the rings hold what the log held when this process started.
    pub(crate) fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::SeqCst)
    }

    /// Waits until [`Self::is_filled`].
    pub(crate) async fn filled(&self) {
        let filled = self.filled.notified();
        if !self.is_filled() {
            filled.await;
        }
    }

    /// Marks the rings as filled and wakes the tasks that wait in [`Self::filled`].
    pub(crate) fn set_filled(&self) {
        self.is_filled.store(true, Ordering::SeqCst);
        self.filled.notify_waiters();
    }

    /// Returns true if an append to `server` can be read: the log is read from `server`, or from no
    /// server at present.
    pub(crate) fn can_read_from(&self, server: &str) -> bool {
        let current = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_deref().is_none_or(|current| current == server)
    }

    /// Sets the server that the log is read from. `None` when the connection is lost.
    pub(crate) fn set_server(&self, server: Option<Arc<str>>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// Makes the follower connect again.
    pub(crate) fn request_reconnect(&self) {
        self.reconnect.notify_one();
    }

    /// Waits for a call of [`Self::request_reconnect`].
    pub(crate) async fn reconnect_requested(&self) {
        self.reconnect.notified().await;
    }

    /// Returns the time for which the log may have had entries that were not read.
    pub(crate) fn lag(&self) -> Duration {
        match self.behind_since_ms.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            since_ms => Duration::from_millis(clock::now_ms().saturating_sub(since_ms)),
        }
    }

    /// Records whether all entries of the log have been read.
    pub(crate) fn set_caught_up(&self, caught_up: bool) {
        if caught_up {
            self.behind_since_ms.store(0, Ordering::SeqCst);
        } else if self.behind_since_ms.load(Ordering::SeqCst) == 0 {
            self.behind_since_ms.store(clock::now_ms(), Ordering::SeqCst);
        }
    }
}

/// Wait before the second attempt to connect.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Waits between attempts to connect. Each is twice as long as the one before, up to [`WAIT_MAX`].
/// Each is shortened at random by up to half, so that replicas that lost the same server do not all
/// reconnect at once.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Backoff {
    /// Returns the wait before the next attempt and doubles the one after it.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.0.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.0 = (self.0 * 2).min(WAIT_MAX);
        wait
    }

    /// Resets to the first wait, after an attempt that succeeded.
    pub(crate) fn reset(&mut self) {
        self.0 = FIRST_WAIT;
    }
}
