//! Timer of a connection without streams: pings, and the reasons to close it.

use std::time::Duration;

use actix_web::web;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::{
    clock,
    model::control::EndReason,
    stream::{StreamContext, pending::Waiting, session::UNANSWERED_MAX},
};

/// Time between two checks for a drain and for too many connections.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Timer of a connection without streams.
#[derive(Debug)]
pub(in crate::outlet) struct ConnectionTimer {
    since: Instant,
    /// Time of the next ping.
    ping_at: Instant,
    /// Number of pings without an answer.
    pings: u8,
    /// Maximum age, or the end in a drain.
    end_at: Instant,
    is_draining: bool,
    /// Time of the next check.
    check_at: Instant,
    /// Keeps the gateway from exiting before the connection is closed.
    _waiting: Waiting,
}

impl ConnectionTimer {
    /// Starts the timer.
    pub(in crate::outlet) fn new(context: &web::Data<StreamContext>, now: Instant) -> Self {
        Self {
            since: now,
            ping_at: now + context.keep_alive,
            pings: 0,
            end_at: now + context.random_age(),
            is_draining: false,
            check_at: now,
            _waiting: Waiting::new(context),
        }
    }

    /// Records that the client has sent something.
    pub(in crate::outlet) fn mark_received(&mut self) {
        self.pings = 0;
    }

    /// Returns the time since the connection has had no stream.
    pub(in crate::outlet) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Returns the time of the next step.
    pub(in crate::outlet) fn deadline(&self) -> Instant {
        self.ping_at.min(self.end_at).min(self.check_at)
    }

    /// Advances the timer. Returns true if a ping is due. `has_too_many_idle` is true if the worker
    /// has so many idle connections that this one has to close.
    ///
    /// # Errors
    /// Returns the reason to close the connection.
    pub(in crate::outlet) fn next(
        &mut self,
        context: &StreamContext,
        expires_ms: Option<u64>,
        has_too_many_idle: bool,
        now: Instant,
    ) -> Result<bool, Refusal> {
        self.check_at = now + CHECK_INTERVAL;
        if !self.is_draining
            && let Some(end_at) = context.random_drain_end()
        {
            self.is_draining = true;
            self.end_at = self.end_at.min(end_at);
        }
        if expires_ms.is_some_and(|expires_ms| expires_ms <= clock::now_ms()) {
            let later = Refusal::later(EndReason::Expired, "the token has expired");
            return Err(later);
        }
        if self.end_at <= now {
            let (reason, text) = if self.is_draining {
                (EndReason::Draining, "this gateway is shutting down")
            } else {
                (EndReason::MaxAge, "the connection has reached its maximum age (--stream-age-max)")
            };
            return Err(Refusal::later(reason, text));
        }
        if has_too_many_idle {
            let text = "too many connections without a stream (--idle-connections-max)";
            return Err(Refusal::later(EndReason::Busy, text));
        }
        if now < self.ping_at {
            return Ok(false);
        }
        self.ping_at = now + context.keep_alive;
        self.pings += 1;
        if UNANSWERED_MAX < self.pings {
            return Err(Refusal::silent());
        }
        Ok(true)
    }
}
