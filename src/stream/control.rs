//! The blocks of a stream that are not events: how it opens, what it misses, why it ends
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use serde::Serialize;

use crate::{
    hub::{Gap, GapReason},
    model::{event::EventId, topic::Topic},
};

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The gateway is shutting down; another replica takes over.
    Draining,
    /// It is as old as it may get.
    MaxAge,
    /// As many streams are open as there may be.
    Busy,
    /// Its reader's token has expired.
    Expired,
    /// The log cannot be asked what the reader wants to know of it.
    Unready,
}

impl End {
    /// As in `stream-end` and in a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::MaxAge => "max-age",
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::Unready => "unready",
        }
    }
}

impl GapReason {
    /// As in `stream-gap` and in a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Restart => "restart",
            Self::UnknownId => "unknown-id",
            Self::LogChanged => "log-changed",
        }
    }
}

/// After a cut that nobody announced. Spread, since a proxy that dies cuts all its streams at once.
const RETRY_AFTER_CUT_MS: std::ops::Range<u64> = 2_000..4_000;
/// After an end that was: ends are spread over time already.
const RETRY_AFTER_END_MS: std::ops::Range<u64> = 200..1_500;
/// After a refusal: from 5 s up, or those who were refused would be the load that causes it.
const RETRY_AFTER_REFUSAL_MS: std::ops::Range<u64> = 5_000..10_000;
/// A gap names no more topics than this, so that its block stays small.
const GAP_TOPICS_MAX: usize = 100;

/// A comment, which every parser ignores: it shows proxies and peers that the stream is alive.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// A comment before the first block. No empty line may follow it: that would end a block without an
/// id, and by the standard set the reader's last event id to nothing.
pub const COMMENT: Bytes = Bytes::from_static(b":\n");

/// The data of `stream-open`.
#[derive(Serialize)]
struct Open<'a> {
    /// A name that nobody can guess, for what concerns this one stream.
    stream: &'a str,
    /// As asked for; none means all.
    topics: Vec<&'a str>,
    resumed: bool,
}

/// The data of `stream-gap`.
#[derive(Serialize)]
struct Missing<'a> {
    reason: &'static str,
    topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics_more: Option<usize>,
    after: Option<String>,
    upto: String,
}

/// The data of `stream-auth`.
#[derive(Serialize)]
struct Auth {
    /// Seconds.
    expires_in: u64,
}

/// The data of `stream-end`.
#[derive(Serialize)]
struct Over {
    reason: &'static str,
}

/// The first block. Its id is the reader's until it gets another.
pub fn open(id: EventId, stream: &str, topics: &[Topic], resumed: bool) -> Bytes {
    let topics = topics.iter().map(Topic::as_str).collect();
    let data = json(&Open { stream, topics, resumed });
    let retry = jitter(RETRY_AFTER_CUT_MS);
    format!("retry: {retry}\nid: {id}\nevent: stream-open\ndata: {data}\n\n").into()
}

/// What is missing. Without an id, so that a reader that is cut before it has read this comes back
/// with the id it had, and is told again.
pub fn gap(gap: &Gap) -> Bytes {
    let data = json(&Missing {
        reason: gap.reason.as_str(),
        topics: gap.topics.iter().take(GAP_TOPICS_MAX).map(Topic::as_str).collect(),
        topics_more: gap.topics.len().checked_sub(GAP_TOPICS_MAX).filter(|more| 0 < *more),
        after: gap.after.map(|id| id.to_string()),
        upto: gap.upto.to_string(),
    });
    format!("event: stream-gap\ndata: {data}\n\n").into()
}

/// For how long the reader's token lets the stream go on. Without an id: it is no event.
pub fn auth(left: Duration) -> Bytes {
    let data = json(&Auth { expires_in: left.as_secs() });
    format!("event: stream-auth\ndata: {data}\n\n").into()
}

/// A resume point with nothing to show for it.
pub fn id(id: EventId) -> Bytes {
    format!("id: {id}\n\n").into()
}

/// The last block of a stream that was open.
pub fn end(reason: End) -> Bytes {
    end_block(None, reason, RETRY_AFTER_END_MS)
}

/// All of a stream that is refused for now: a reader that brought an id keeps it.
pub fn refusal(id: Option<EventId>, reason: End) -> Bytes {
    end_block(id, reason, RETRY_AFTER_REFUSAL_MS)
}

/// The shortest wait of a refused reader, for those that understand `Retry-After`.
pub fn refusal_wait() -> Duration {
    Duration::from_millis(RETRY_AFTER_REFUSAL_MS.start)
}

fn end_block(id: Option<EventId>, reason: End, retry: std::ops::Range<u64>) -> Bytes {
    let retry = jitter(retry);
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let data = json(&Over { reason: reason.as_str() });
    format!("retry: {retry}\n{id}event: stream-end\ndata: {data}\n\n").into()
}

/// These have no maps with keys that are not text, which is all that can fail.
fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).unwrap_or_default()
}

fn jitter(range: std::ops::Range<u64>) -> u64 {
    rand::rng().random_range(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EventId = EventId { time_ms: 17, sequence: 4 };

    /// The block with its `retry:` line replaced, once that is seen to be within its range.
    fn without_retry(block: &Bytes, range: std::ops::Range<u64>) -> String {
        let text = str::from_utf8(block).unwrap();
        let (retry, rest) = text.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
        assert!(range.contains(&retry.parse().unwrap()), "{retry}");
        rest.to_owned()
    }

    #[test]
    fn whole_blocks() {
        let topics = ["orders".parse().unwrap()];
        assert_eq!(
            without_retry(&open(ID, "9f2c", &topics, true), RETRY_AFTER_CUT_MS),
            "id: 17-4\nevent: stream-open\n\
             data: {\"stream\":\"9f2c\",\"topics\":[\"orders\"],\"resumed\":true}\n\n"
        );
        let missing = Gap {
            reason: GapReason::Evicted,
            topics: topics.to_vec(),
            after: Some(ID),
            upto: EventId { time_ms: 18, sequence: 0 },
        };
        assert_eq!(
            gap(&missing),
            "event: stream-gap\n\
             data: {\"reason\":\"evicted\",\"topics\":[\"orders\"],\"after\":\"17-4\",\
             \"upto\":\"18-0\"}\n\n"
        );
        assert_eq!(
            without_retry(&end(End::Draining), RETRY_AFTER_END_MS),
            "event: stream-end\ndata: {\"reason\":\"draining\"}\n\n"
        );
        assert_eq!(
            without_retry(&refusal(Some(ID), End::Busy), RETRY_AFTER_REFUSAL_MS),
            "id: 17-4\nevent: stream-end\ndata: {\"reason\":\"busy\"}\n\n"
        );
        assert_eq!(id(ID), "id: 17-4\n\n");
        assert_eq!(KEEP_ALIVE, ":\n\n");
    }

    #[test]
    fn a_gap_in_very_many_topics_stays_small() {
        let name = |n: usize| format!("topic-{n}").parse().unwrap();
        let missing = Gap {
            reason: GapReason::Evicted,
            topics: (0..10_000).map(name).collect(),
            after: None,
            upto: ID,
        };
        let block = gap(&missing);
        assert!(block.len() < 4_096);
        assert!(str::from_utf8(&block).unwrap().contains("\"topics_more\":9900"));
    }
}
