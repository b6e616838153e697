//! Leases: how long a reader's token lets a stream continue, and the registry with which a token
//! renews an open stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::{auth::grant::Grant, backplane::Renewal, clock, hub::GroupKey};

/// Terms of a token for the stream that it opens.
#[derive(Debug, Clone)]
pub struct Terms {
    subject: Option<Arc<str>>,
    /// Expiry of the token in Unix milliseconds.
    expires_ms: u64,
}

/// Permission of one stream to continue. Shared with the handlers that extend it.
#[derive(Debug)]
pub struct Lease {
    subject: Option<Arc<str>>,
    /// Topics and filter of the stream.
    key: GroupKey,
    expires_ms: AtomicU64,
    waker: AtomicWaker,
}

/// Leases of the streams that are open in this process, by the names of the streams.
#[derive(Debug, Default)]
pub struct LeaseRegistry {
    by_name: Mutex<HashMap<String, Weak<Lease>>>,
}

/// Entry of a stream in the registry. Dropping it removes the entry.
#[derive(Debug)]
pub struct LeaseEntry {
    registry: Arc<LeaseRegistry>,
    name: String,
}

/// Timer of a stream's lease: the time of the warning to the reader, and the time of the end.
#[derive(Debug)]
pub(crate) struct LeaseTimer {
    lease: Arc<Lease>,
    _entry: LeaseEntry,
    /// Expiry that the stream knows, in Unix milliseconds.
    expires_ms: u64,
    /// Expiry on the clock that timers use.
    expires_at: Instant,
    /// Time of the warning to the reader. `None` after the warning.
    warn_at: Option<Instant>,
}

/// Time between the warning and the expiry: long enough for a page to fetch another token.
const WARNING: Duration = Duration::from_secs(60);

impl Terms {
    /// Returns the terms of the token with this grant.
    pub fn of(grant: &Grant) -> Self {
        Self { subject: grant.subject.clone(), expires_ms: grant.expires_ms }
    }
}

impl Lease {
    /// Creates the lease of a stream of the group `key`, which must share the memory of the group's
    /// key: a copy for each stream would take more memory than the stream.
    pub fn new(terms: Terms, key: GroupKey) -> Arc<Self> {
        Arc::new(Self {
            subject: terms.subject,
            key,
            expires_ms: AtomicU64::new(terms.expires_ms),
            waker: AtomicWaker::new(),
        })
    }

    /// Checks that `grant` may extend this lease: same subject, no earlier expiry, all topics that
    /// the stream follows, and no filter, or one whose conditions the filter of the stream has.
    ///
    /// # Errors
    /// Returns a text for the sender of the token.
    pub fn allows(&self, grant: &Grant) -> Result<(), &'static str> {
        if self.subject.is_none() || self.subject != grant.subject {
            return Err("the token is not of the subject (sub) that opened the stream");
        }
        if grant.expires_ms < self.expires_ms.load(Ordering::SeqCst) {
            return Err("the token ends before the one that the stream has");
        }
        if !self.key.topics.is_within(&grant.topics) {
            return Err("the token does not grant all that the stream follows");
        }
        let is_within = |wider| self.key.filter.as_ref().is_some_and(|own| own.is_within(wider));
        if !grant.filter.as_ref().is_none_or(is_within) {
            return Err(
                "the token has a claim filter that is not part of the stream's filter: open a new \
                 stream with the token",
            );
        }
        Ok(())
    }

    /// Extends the lease to `expires_ms`, in Unix milliseconds. Never shortens it.
    pub fn extend(&self, expires_ms: u64) {
        self.expires_ms.fetch_max(expires_ms, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl LeaseRegistry {
    /// Adds the lease of the stream `name` until the entry is dropped.
    pub fn add(self: &Arc<Self>, name: &str, lease: &Arc<Lease>) -> LeaseEntry {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::downgrade(lease));
        LeaseEntry { registry: Arc::clone(self), name: name.to_owned() }
    }

    /// Returns the lease of the stream `name`, if it is open in this process.
    pub fn find(&self, name: &str) -> Option<Arc<Lease>> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name)?.upgrade()
    }

    /// Applies a renewal that another replica received. Ignores one that the lease does not allow.
    pub fn renew(&self, renewal: &Renewal) {
        if let Some(lease) = self.find(&renewal.stream)
            && let Some(grant) = Grant::from_json(&renewal.grant)
            && lease.allows(&grant).is_ok()
        {
            lease.extend(grant.expires_ms);
        }
    }
}

impl Drop for LeaseEntry {
    fn drop(&mut self) {
        let mut by_name = self.registry.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.remove(&self.name);
    }
}

impl LeaseTimer {
    /// Starts the timer of a stream that opens at `now`.
    pub(crate) fn new(lease: Arc<Lease>, entry: LeaseEntry, now: Instant) -> Self {
        let expires_ms = lease.expires_ms.load(Ordering::SeqCst);
        let mut timer = Self { lease, _entry: entry, expires_ms, expires_at: now, warn_at: None };
        timer.restart(expires_ms, now);
        timer
    }

    /// Returns the lease.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    fn restart(&mut self, expires_ms: u64, now: Instant) {
        let left = Duration::from_millis(expires_ms.saturating_sub(clock::now_ms()));
        self.expires_ms = expires_ms;
        self.expires_at = now + left;
        self.warn_at = Some(now + left.saturating_sub(WARNING));
    }

    /// Returns the time that is left, if the reader must be notified now: the lease was extended,
    /// or it expires soon.
    pub(crate) fn poll_notice(&mut self, now: Instant) -> Option<Duration> {
        let expires_ms = self.lease.expires_ms.load(Ordering::SeqCst);
        if expires_ms != self.expires_ms {
            self.restart(expires_ms, now);
            return Some(self.expires_at - now);
        }
        if self.warn_at.is_some_and(|warn_at| warn_at <= now) {
            self.warn_at = None;
            return Some(self.expires_at.saturating_duration_since(now));
        }
        None
    }

    /// Returns true if the lease has expired.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at <= now
    }

    /// Registers `waker`, which is woken when the lease is extended.
    pub(crate) fn register(&self, waker: &Waker) {
        self.lease.waker.register(waker);
    }

    /// Returns the time of the next notice or of the expiry.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.warn_at.unwrap_or(self.expires_at).min(self.expires_at)
    }
}
