//! Receives a body within limits: its own size, the bytes of all bodies together, and time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::budget::{Budget, Claim};

/// Why a body was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreceived {
    /// It is larger than it may be.
    TooLarge,
    /// The bodies that are being received take all the memory they may.
    Busy,
    /// It did not come in time.
    TooSlow,
    /// The connection broke, or the body did.
    Broken,
}

/// A body that takes longer is a slow-loris attack: Pub/Sub gives up after its ack deadline, which
/// is 10 s by default.
const RECEIVE_MAX: Duration = Duration::from_secs(60);
/// Of a body that is too large so much is read and dropped, so that its sender gets to read the
/// answer; a connection that is closed over unread data is reset.
const DISCARD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of bodies in memory, over all pushes.
#[derive(Debug)]
pub struct InFlight {
    budget: Arc<Budget>,
    pushes: AtomicUsize,
}

/// Counts one push for as long as it is being answered.
#[derive(Debug)]
pub struct Push(Arc<InFlight>);

impl Drop for Push {
    fn drop(&mut self) {
        self.0.pushes.fetch_sub(1, Ordering::SeqCst);
    }
}

impl InFlight {
    /// None yet, and at most so many.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(max), pushes: AtomicUsize::new(0) })
    }

    /// Counts one more push until what it returns is dropped.
    pub fn begin(self: &Arc<Self>) -> Push {
        self.pushes.fetch_add(1, Ordering::SeqCst);
        Push(Arc::clone(self))
    }

    /// How many pushes are being answered.
    pub fn pushes(&self) -> usize {
        self.pushes.load(Ordering::SeqCst)
    }

    /// How many bytes there are now.
    pub fn bytes(&self) -> usize {
        self.budget.bytes()
    }
}

/// A body, and its claim on the memory for bodies, which ends with it.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    _claim: Claim,
}

/// Receives a body of at most `max` bytes.
///
/// # Errors
/// See [`Unreceived`].
pub async fn receive(
    payload: web::Payload,
    max: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Body, Unreceived> {
    let received = tokio::time::timeout(RECEIVE_MAX, collect(payload, max, in_flight)).await;
    received.unwrap_or(Err(Unreceived::TooSlow))
}

async fn collect(
    mut payload: web::Payload,
    max: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Body, Unreceived> {
    // Only bytes that came are claimed: a large `Content-Length` alone reserves nothing.
    let mut claim = in_flight.budget.claim();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut too_large = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Unreceived::Broken)?;
        if 0 < too_large || max < claim.bytes() + chunk.len() {
            too_large += chunk.len();
            if DISCARD_MAX_BYTES < too_large {
                return Err(Unreceived::TooLarge);
            }
            (first, all) = (Bytes::new(), BytesMut::new());
            claim.release();
            continue;
        }
        if !claim.grow(chunk.len()) {
            return Err(Unreceived::Busy);
        }
        // Most bodies come in one chunk, which is taken as it is.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    if 0 < too_large {
        return Err(Unreceived::TooLarge);
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Body { bytes, _claim: claim })
}
