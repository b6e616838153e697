//! Data of control messages as JSON.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Serialize;

use crate::model::{
    control::{End, Folded, Open},
    gap::Gap,
    presence::{Member, Presence, PresenceUpdate, Roster},
    topic::Topic,
};

/// Largest number of topics that a gap names, so that its message stays small.
const GAP_TOPICS_MAX: usize = 100;

/// Largest number of ordering keys that `stream-folded` names, and of their bytes.
const FOLDED_KEYS_MAX: usize = 100;
const FOLDED_KEYS_MAX_BYTES: usize = 8 * 1024;

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
    pub(crate) reason: &'static str,
    pub(crate) topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topics_more: Option<usize>,
    pub(crate) after: Option<String>,
    pub(crate) upto: String,
}

/// Data of `stream-folded`.
#[derive(Debug, Serialize)]
pub(crate) struct FoldedData<'a> {
    pub(crate) events: u64,
    pub(crate) after: String,
    pub(crate) upto: String,
    /// Numbers of events by ordering key.
    pub(crate) keys: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys_more: Option<usize>,
}

/// Data of `stream-presence`: the topic, and one of the other fields.
#[derive(Debug, Serialize)]
pub(crate) struct PresenceData<'a> {
    topic: &'a str,
    #[serde(flatten)]
    roster: Option<RosterData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    also: Option<Vec<MemberData<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leave: Option<&'a str>,
}

/// Members of a topic.
#[derive(Debug, Serialize)]
struct RosterData<'a> {
    members: Vec<MemberData<'a>>,
    anonymous: usize,
    more: bool,
}

/// Member of a topic.
#[derive(Debug, Serialize)]
struct MemberData<'a> {
    subject: &'a str,
    streams: usize,
}

/// Data of the first message, in a format of JSON without other fields.
#[derive(Debug, Serialize)]
pub(crate) struct Opened<'a> {
    pub id: String,
    #[serde(flatten)]
    pub data: OpenData<'a>,
    /// Milliseconds after which to reconnect when the connection breaks.
    pub retry: u64,
}

/// Data of a checkpoint, in such a format.
#[derive(Debug, Serialize)]
pub(crate) struct Checkpoint {
    pub id: String,
}

/// Data of the last message, in such a format.
#[derive(Debug, Serialize)]
pub(crate) struct Ended {
    #[serde(flatten)]
    pub data: EndData,
    /// Milliseconds after which to reconnect.
    pub retry: u64,
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

impl<'a> FoldedData<'a> {
    /// Returns the data of a fold, with the keys of which the most events were replaced.
    pub(crate) fn of(folded: &'a Folded) -> Self {
        let mut all: Vec<_> = folded.keys.iter().map(|(key, n)| (key.as_str(), *n)).collect();
        all.sort_by_key(|(_, events)| Reverse(*events));
        let mut bytes = 0;
        let is_small = |(key, _): &(&str, u64)| {
            bytes += key.len();
            bytes <= FOLDED_KEYS_MAX_BYTES
        };
        let keys: BTreeMap<_, _> =
            all.iter().copied().take(FOLDED_KEYS_MAX).take_while(is_small).collect();
        Self {
            events: folded.events,
            after: folded.after.to_string(),
            upto: folded.upto.to_string(),
            keys_more: all.len().checked_sub(keys.len()).filter(|more| 0 < *more),
            keys,
        }
    }
}

impl<'a> PresenceData<'a> {
    /// Returns the data of a message about the members of a topic.
    pub(crate) fn of(presence: &'a Presence) -> Self {
        let none = Self {
            topic: presence.topic.as_str(),
            roster: None,
            also: None,
            join: None,
            leave: None,
        };
        match &presence.update {
            PresenceUpdate::Members(roster) => {
                Self { roster: Some(RosterData::of(roster)), ..none }
            }
            PresenceUpdate::Also(members) => Self { also: Some(members_data(members)), ..none },
            PresenceUpdate::Join(name) => Self { join: Some(name.as_str()), ..none },
            PresenceUpdate::Leave(name) => Self { leave: Some(name.as_str()), ..none },
        }
    }

    /// Returns the data of the members of `topic`.
    pub(crate) fn of_roster(topic: &'a Topic, roster: &'a Roster) -> Self {
        let (topic, roster) = (topic.as_str(), Some(RosterData::of(roster)));
        Self { topic, roster, also: None, join: None, leave: None }
    }
}

impl<'a> RosterData<'a> {
    fn of(roster: &'a Roster) -> Self {
        let Roster { members, anonymous, more } = roster;
        Self { members: members_data(members), anonymous: *anonymous, more: *more }
    }
}

fn members_data(members: &[Member]) -> Vec<MemberData<'_>> {
    members
        .iter()
        .map(|Member { name, streams }| MemberData { subject: name.as_str(), streams: *streams })
        .collect()
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
