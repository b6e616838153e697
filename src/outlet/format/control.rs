//! Data of control messages as JSON.

use serde::Serialize;

use crate::model::{
    control::{End, Open},
    gap::Gap,
    topic::Topic,
};

/// Largest number of topics that a gap names, so that its message stays small.
const GAP_TOPICS_MAX: usize = 100;

/// Data of `stream-open`.
#[derive(Debug, Serialize)]
pub(crate) struct OpenData<'a> {
    stream: &'a str,
    topics: Vec<String>,
    resumed: bool,
}

/// Data of `stream-gap`.
#[derive(Debug, Serialize)]
pub(crate) struct GapData<'a> {
    reason: &'static str,
    topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics_more: Option<usize>,
    after: Option<String>,
    upto: String,
}

/// Data of `stream-auth`.
#[derive(Debug, Serialize)]
pub(crate) struct AuthData {
    /// Seconds until the token expires.
    pub(crate) expires_in: u64,
}

/// Data of `stream-end`.
#[derive(Debug, Serialize)]
pub(crate) struct EndData {
    reason: &'static str,
}

impl<'a> OpenData<'a> {
    /// Returns the data of the first message.
    pub(crate) fn of(open: &'a Open) -> Self {
        let topics = open.topics.iter().map(ToString::to_string).collect();
        Self { stream: &open.stream, topics, resumed: open.resumed }
    }
}

impl<'a> GapData<'a> {
    /// Returns the data of a gap.
    pub(crate) fn of(gap: &'a Gap) -> Self {
        Self {
            reason: gap.reason.as_str(),
            topics: gap.topics.iter().take(GAP_TOPICS_MAX).map(Topic::as_str).collect(),
            topics_more: gap.topics.len().checked_sub(GAP_TOPICS_MAX).filter(|more| 0 < *more),
            after: gap.after.map(|id| id.to_string()),
            upto: gap.upto.to_string(),
        }
    }
}

impl EndData {
    /// Returns the data of the last message.
    pub(crate) fn of(end: &End) -> Self {
        Self { reason: end.reason.as_str() }
    }
}

/// Encodes data as JSON. Maps in the data have text keys only, so encoding cannot fail.
pub(crate) fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).unwrap_or_default()
}
