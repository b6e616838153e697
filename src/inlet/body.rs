//! Receives a body within limits: its own size, the bytes of all bodies together, and time.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_http::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::limits::budget::{Budget, Claim};

/// Why a body was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveError {
    /// It is larger than it may be.
    TooLarge,
    /// The bodies that are being received take all the memory they may.
    Busy,
    /// It did not come in time.
    TooSlow,
    /// The connection broke, or the body did.
    Broken,
}

/// Of a body that is refused so much is read and dropped, so that its sender gets to read the
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

/// How much of a body is taken, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    pub bytes: usize,
    /// A body that takes longer is a slow-loris attack.
    pub time: Duration,
}

/// Receives a body within its limits.
///
/// `nudged` says that this is looked at whenever its connection's socket has something, and about
/// once a second come what may: as HTTP/1 is, whose requests are answered by their connection's
/// task. Then the first look, which comes just before the body does, neither has the task woken
/// for the body (it would be looked at once more in vain) nor sets a timer.
///
/// # Errors
/// See [`ReceiveError`].
pub async fn receive(
    payload: Payload,
    limits: BodyLimits,
    in_flight: &Arc<InFlight>,
    nudged: bool,
) -> Result<Body, ReceiveError> {
    let mut received = pin!(collect(payload, limits.bytes, in_flight));
    if nudged {
        let mut first = Some(Context::from_waker(Waker::noop()));
        let looked = poll_fn(|cx| match &mut first {
            None => Poll::Ready(received.as_mut().poll(cx)),
            Some(unwoken) => {
                let looked = received.as_mut().poll(unwoken);
                first = None;
                if looked.is_ready() { Poll::Ready(looked) } else { Poll::Pending }
            }
        });
        if let Poll::Ready(received) = looked.await {
            return received;
        }
    } else if let Poll::Ready(received) =
        poll_fn(|cx| Poll::Ready(received.as_mut().poll(cx))).await
    {
        // It was there, and needed no timer.
        return received;
    }
    tokio::time::timeout(limits.time, received).await.unwrap_or(Err(ReceiveError::TooSlow))
}

async fn collect(
    mut payload: Payload,
    max: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Body, ReceiveError> {
    // Only bytes that came are claimed: a large `Content-Length` alone reserves nothing.
    let mut claim = in_flight.budget.claim();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let (mut refused, mut dropped) = (None, 0);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ReceiveError::Broken)?;
        if refused.is_none() {
            refused = if max < claim.bytes() + chunk.len() {
                Some(ReceiveError::TooLarge)
            } else {
                (!claim.grow(chunk.len())).then_some(ReceiveError::Busy)
            };
        }
        if let Some(why) = refused {
            (first, all) = (Bytes::new(), BytesMut::new());
            claim.release();
            dropped += chunk.len();
            if DISCARD_MAX_BYTES < dropped {
                return Err(why);
            }
            continue;
        }
        // Most bodies come in one chunk, which is taken as it is.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    if let Some(why) = refused {
        return Err(why);
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Body { bytes, _claim: claim })
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use actix_http::h1;

    use super::*;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A peer that sends a head and no body: the first look sets no timer, the nudge's does.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_waited_for_so_long_and_no_longer() {
        let limits = BodyLimits { bytes: 1_000, time: Duration::from_secs(60) };
        for nudged in [false, true] {
            let (_sender, payload) = h1::Payload::create(false);
            let in_flight = InFlight::new(1_000);
            let woken = Arc::new(Woken(AtomicUsize::new(0)));
            let (waker, payload) = (Arc::clone(&woken).into(), Payload::H1 { payload });
            let mut cx = Context::from_waker(&waker);
            let mut body = pin!(receive(payload, limits, &in_flight, nudged));
            assert!(body.as_mut().poll(&mut cx).is_pending());
            tokio::time::advance(limits.time * 2).await;
            tokio::task::yield_now().await;
            assert_eq!(woken.0.load(Ordering::SeqCst), usize::from(!nudged));
            if nudged {
                assert!(body.as_mut().poll(&mut cx).is_pending());
                tokio::time::advance(limits.time * 2).await;
                tokio::task::yield_now().await;
                assert_eq!(woken.0.load(Ordering::SeqCst), 1);
            }
            let Poll::Ready(Err(err)) = body.as_mut().poll(&mut cx) else { panic!("it is over") };
            assert_eq!(err, ReceiveError::TooSlow);
        }
    }
}
