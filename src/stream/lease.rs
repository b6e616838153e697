//! For how long a reader's token lets a stream go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::{auth::grant::Grant, clock, hub::TopicSet, outlet::tickets::Listed};

/// What a token says of the stream that it opens.
#[derive(Debug, Clone)]
pub struct Terms {
    subject: Option<Arc<str>>,
    expires_ms: u64,
}

/// A stream's permission to go on, which can be extended from outside.
#[derive(Debug)]
pub struct Lease {
    subject: Option<Arc<str>>,
    /// What its stream follows.
    topics: TopicSet,
    expires_ms: AtomicU64,
    waker: AtomicWaker,
}

/// A stream's side of its lease.
#[derive(Debug)]
pub struct Expiry {
    lease: Arc<Lease>,
    _listed: Listed,
    /// As the stream last knew it.
    expires_ms: u64,
    /// The same, by the clock that timers go by.
    pub at: Instant,
    /// When the reader is to be told that it comes. None when it was.
    pub warn_at: Option<Instant>,
}

/// Long enough before the end for a page to fetch another token.
const WARNING: Duration = Duration::from_secs(60);

impl Terms {
    /// Those of a token.
    pub fn of(grant: &Grant) -> Self {
        Self { subject: grant.subject.clone(), expires_ms: grant.expires_ms }
    }
}

impl Lease {
    /// For a stream of these topics: those of its group, or there would be a copy in memory for
    /// each stream.
    pub fn new(terms: Terms, topics: TopicSet) -> Arc<Self> {
        Arc::new(Self {
            subject: terms.subject,
            topics,
            expires_ms: AtomicU64::new(terms.expires_ms),
            waker: AtomicWaker::new(),
        })
    }

    /// Whether a grant is enough to extend it.
    ///
    /// # Errors
    /// With what is missing.
    pub fn allows(&self, grant: &Grant) -> Result<(), &'static str> {
        if self.subject.is_none() || self.subject != grant.subject {
            return Err("the token is not of the subject (sub) that opened the stream");
        }
        if grant.expires_ms < self.expires_ms.load(Ordering::SeqCst) {
            return Err("the token ends before the one that the stream has");
        }
        if !self.topics.is_within(&grant.topics) {
            return Err("the token does not grant all that the stream follows");
        }
        Ok(())
    }

    /// Lets its stream go on until then, or for as long as it may anyhow.
    pub fn extend(&self, expires_ms: u64) {
        self.expires_ms.fetch_max(expires_ms, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl Expiry {
    pub fn new(lease: Arc<Lease>, listed: Listed, now: Instant) -> Self {
        let expires_ms = lease.expires_ms.load(Ordering::SeqCst);
        let mut expiry = Self { lease, _listed: listed, expires_ms, at: now, warn_at: None };
        expiry.begin(expires_ms, now);
        expiry
    }

    fn begin(&mut self, expires_ms: u64, now: Instant) {
        let left = Duration::from_millis(expires_ms.saturating_sub(clock::now_ms()));
        self.expires_ms = expires_ms;
        self.at = now + left;
        self.warn_at = Some(now + left.saturating_sub(WARNING));
    }

    /// How long is left, if the reader is to be told that now: the end is near, or it was put off.
    pub fn news(&mut self, now: Instant) -> Option<Duration> {
        let expires_ms = self.lease.expires_ms.load(Ordering::SeqCst);
        if expires_ms != self.expires_ms {
            self.begin(expires_ms, now);
            return Some(self.at - now);
        }
        if self.warn_at.is_some_and(|warn_at| warn_at <= now) {
            self.warn_at = None;
            return Some(self.at.saturating_duration_since(now));
        }
        None
    }

    /// The stream's task is to be woken when the end is put off.
    pub fn wake(&self, waker: &Waker) {
        self.lease.waker.register(waker);
    }

    /// When there is something to do by itself.
    pub fn due(&self) -> Instant {
        self.warn_at.unwrap_or(self.at).min(self.at)
    }
}
