//! Link that pushes and requests share, opened again whenever it is lost.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::Notify;

use crate::{
    backplane::{
        follower::{Backoff, Progress},
        redis::{dialer::Dialer, link::Link},
    },
    telemetry::throttle::LogThrottle,
};

/// Link to the server, shared by pushes and requests.
#[derive(Debug)]
pub(crate) struct SharedLink {
    dialer: Arc<Dialer>,
    /// Progress of the tail, which knows the server that it reads from.
    progress: Arc<Progress>,
    /// Longest time for the answer to a command.
    response_max: Duration,
    /// Counter of attempts to connect.
    connects: IntCounter,
    /// Link to the server. `None` while there is no connection.
    current: RwLock<Option<Link>>,
    lost: Notify,
    log_throttle: LogThrottle,
}

impl SharedLink {
    /// Creates a link without a connection. [`Self::keep_connected`] connects it.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        progress: Arc<Progress>,
        response_max: Duration,
        connects: IntCounter,
    ) -> Self {
        Self {
            dialer,
            progress,
            response_max,
            connects,
            current: RwLock::default(),
            lost: Notify::new(),
            log_throttle: LogThrottle::default(),
        }
    }

    /// Returns a clone of the link. `None` while there is no connection.
    pub(crate) fn get(&self) -> Option<Link> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a clone of the link, if the tail reads from the same server. If the tail reads from
    /// another one, gives up both connections: one of the servers is no longer the master and does
    /// not know it, and readers would miss what is appended there.
    pub(crate) fn get_followed(&self) -> Option<Link> {
        let link = self.get()?;
        if self.progress.can_read_from(link.server()) {
            return Some(link);
        }
        self.progress.request_reconnect();
        self.give_up(&link);
        None
    }

    /// Logs the error of a command on `link`, and gives the link up if the error concerns more than
    /// this command.
    pub(crate) fn report_error(&self, link: &Link, err: &RedisError) {
        if let Some(unlogged) = self.log_throttle.log(Instant::now()) {
            let server = self.dialer.address();
            tracing::warn!(server, error = %err, unlogged, "a Redis command failed");
        }
        if is_connection_unusable(err) {
            self.give_up(link);
        }
    }

    /// Drops `link`, if it is still the current one, so that a new connection is made.
    pub(crate) fn give_up(&self, link: &Link) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.is_same_connection(link)) {
            *current = None;
            self.lost.notify_one();
        }
    }

    /// Connects, and connects again whenever the connection is lost. Never returns.
    pub(crate) async fn keep_connected(&self) {
        let mut backoff = Backoff::default();
        loop {
            self.connects.inc();
            match self.dialer.dial(self.response_max).await {
                Ok(link) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
                    let connected = Instant::now();
                    self.lost.notified().await;
                    // A connection that breaks at its first use must not be repeated at once.
                    if self.response_max < connected.elapsed() {
                        backoff.reset();
                    }
                }
                Err(err) => {
                    let server = self.dialer.address();
                    tracing::warn!(server, error = %err, "cannot connect to Redis for pushes");
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Returns true if an error shows that the connection is broken, or that its server is no longer
/// the master. All other errors concern one command.
fn is_connection_unusable(err: &RedisError) -> bool {
    // Before Redis 7 the error of a command in a script is part of the text of another error.
    let is_no_master = matches!(
        err.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    ) || err.to_string().contains("READONLY");
    let is_answer_of_server = matches!(err.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    is_no_master || !is_answer_of_server
}
