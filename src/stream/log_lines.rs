//! Log lines about streams: one when a stream opens, and one when it ends.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{control::Open, event_id::EventId},
    telemetry::throttle::LogThrottle,
};

/// Writer of the log lines about streams: numbers the streams, and limits lines at level `info`.
#[derive(Debug)]
pub struct LogLines {
    started: Instant,
    /// Number of streams that were opened.
    opened: AtomicU32,
    /// Limit on lines at level `info`.
    slow_readers: LogThrottle,
}

/// Number of a stream in the log, and the time at which it was opened. Both are small, since each
/// stream holds them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoggedStream {
    /// Number of the stream in this process.
    number: u32,
    /// Time from the start of the process, in milliseconds modulo 2^32.
    opened_ms: u32,
}

/// Fields of the line about a stream that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) outlet: &'static str,
    pub(crate) reason: &'static str,
    /// Number of events that were sent.
    pub(crate) events: u32,
    /// Id of the newest event or checkpoint that was sent.
    pub(crate) cursor: EventId,
}

/// Reasons of an end that show that the reader was too slow. An operator wants to see these ends
/// without the lines about all streams.
const SLOW_READER: [&str; 2] = ["stalled", "fell-behind"];

/// Number of characters of a stream's name that the log shows. The log never has the whole name,
/// with which the holder of a token can renew the stream.
const SHOWN_CHARS: usize = 8;

impl LogLines {
    /// Creates the log lines of a process that starts now.
    pub(crate) fn new() -> Self {
        let (opened, slow_readers) = (AtomicU32::new(0), LogThrottle::default());
        Self { started: Instant::now(), opened, slow_readers }
    }

    /// Gives a stream its number, and logs that it is open.
    pub(crate) fn open(&self, outlet: &'static str, open: &Open, now: Instant) -> LoggedStream {
        let number = self.opened.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        tracing::debug!(
            number,
            outlet,
            stream = open.stream.get(..SHOWN_CHARS),
            topics = open.topics.len(),
            resumed = open.resumed,
            cursor = %open.id,
            "stream opened"
        );
        LoggedStream { number, opened_ms: self.millis(now) }
    }

    /// Logs that a stream has ended, at level `debug`. A reader that was too slow is logged at
    /// `info`, at most once in 10 s.
    pub(crate) fn end(&self, stream: LoggedStream, ended: Ended) {
        let LoggedStream { number, opened_ms } = stream;
        let Ended { outlet, reason, events, cursor } = ended;
        let now = Instant::now();
        let lasted = Duration::from_millis(self.millis(now).wrapping_sub(opened_ms).into());
        let is_slow = SLOW_READER.contains(&reason);
        let seconds = lasted.as_secs_f64();
        match is_slow.then(|| self.slow_readers.log(now.into_std())).flatten() {
            Some(more) => {
                tracing::info!(number, outlet, reason, seconds, events, %cursor, more, "stream ended");
            }
            None => {
                tracing::debug!(number, outlet, reason, seconds, events, %cursor, "stream ended");
            }
        }
    }

    /// Returns the time from the start of the process in milliseconds, modulo 2^32: 49 days, which
    /// is longer than any stream.
    fn millis(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.started).as_millis() % (1 << 32);
        u32::try_from(millis).unwrap_or_default()
    }
}
