//! Format of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::model::{
    control::{Control, End, Open},
    encode::{Encode, Format},
    event::Event,
    gap::Gap,
    topic::Topic,
};

/// Handle to the format.
pub const SSE: Format = Format(&Sse);

/// Format of server-sent events. Events hold their frame already: see [`Event::frame`].
#[derive(Debug)]
struct Sse;

/// Largest number of topics that a gap names, so that its message stays small.
const GAP_TOPICS_MAX: usize = 100;
/// Comment, which every parser ignores.
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");
/// Comment before the first message. No empty line may follow it: that would end a message without
/// an id, which by the standard resets the reader's last event id.
const WAITING: Bytes = Bytes::from_static(b":\n");

/// Data of `stream-open`.
#[derive(Serialize)]
struct OpenData<'a> {
    stream: &'a str,
    topics: Vec<&'a str>,
    resumed: bool,
}

/// Data of `stream-gap`.
#[derive(Serialize)]
struct GapData<'a> {
    reason: &'static str,
    topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics_more: Option<usize>,
    after: Option<String>,
    upto: String,
}

/// Data of `stream-auth`.
#[derive(Serialize)]
struct AuthData {
    /// Seconds until the token expires.
    expires_in: u64,
}

/// Data of `stream-end`.
#[derive(Serialize)]
struct EndData {
    reason: &'static str,
}

impl Encode for Sse {
    fn name(&self) -> &'static str {
        "sse"
    }

    fn event(&self, event: &Event) -> Bytes {
        event.frame().clone()
    }

    fn append(&self, event: &Event, batch: &mut BytesMut) {
        batch.extend_from_slice(event.frame());
    }

    fn control(&self, control: &Control) -> Bytes {
        match control {
            Control::Open(opened) => open(opened),
            Control::Gap(missing) => gap(missing),
            Control::Auth(left) => {
                let data = json(&AuthData { expires_in: left.as_secs() });
                format!("event: stream-auth\ndata: {data}\n\n").into()
            }
            Control::Checkpoint(id) => format!("id: {id}\n\n").into(),
            Control::KeepAlive => KEEP_ALIVE,
            Control::Waiting => WAITING,
            Control::End(ended) => end(*ended),
        }
    }
}

fn open(open: &Open) -> Bytes {
    let Open { id, stream, topics, resumed, retry_ms } = open;
    let topics = topics.iter().map(Topic::as_str).collect();
    let data = json(&OpenData { stream, topics, resumed: *resumed });
    format!("retry: {retry_ms}\nid: {id}\nevent: stream-open\ndata: {data}\n\n").into()
}

fn gap(gap: &Gap) -> Bytes {
    let data = json(&GapData {
        reason: gap.reason.as_str(),
        topics: gap.topics.iter().take(GAP_TOPICS_MAX).map(Topic::as_str).collect(),
        topics_more: gap.topics.len().checked_sub(GAP_TOPICS_MAX).filter(|more| 0 < *more),
        after: gap.after.map(|id| id.to_string()),
        upto: gap.upto.to_string(),
    });
    format!("event: stream-gap\ndata: {data}\n\n").into()
}

fn end(end: End) -> Bytes {
    let End { reason, id, retry_ms } = end;
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let data = json(&EndData { reason: reason.as_str() });
    format!("retry: {retry_ms}\n{id}event: stream-end\ndata: {data}\n\n").into()
}

/// Encodes data as JSON. Maps in the data have text keys only, so encoding cannot fail.
fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{control::EndReason, event_id::EventId, gap::GapReason};

    const ID: EventId = EventId { time_ms: 17, sequence: 4 };

    fn encoded(control: &Control) -> String {
        String::from_utf8(SSE.control(control).to_vec()).unwrap()
    }

    #[test]
    fn control_messages_are_encoded_whole() {
        let topics: Vec<Topic> = vec!["orders".parse().unwrap()];
        let open = Open {
            id: ID,
            stream: "9f2c".to_owned(),
            topics: topics.clone(),
            resumed: true,
            retry_ms: 2_731,
        };
        assert_eq!(
            encoded(&Control::Open(Box::new(open))),
            "retry: 2731\nid: 17-4\nevent: stream-open\n\
             data: {\"stream\":\"9f2c\",\"topics\":[\"orders\"],\"resumed\":true}\n\n"
        );
        let upto = EventId { time_ms: 18, sequence: 0 };
        let missing = Gap { reason: GapReason::Evicted, topics, after: Some(ID), upto };
        assert_eq!(
            encoded(&Control::Gap(Box::new(missing))),
            "event: stream-gap\n\
             data: {\"reason\":\"evicted\",\"topics\":[\"orders\"],\"after\":\"17-4\",\
             \"upto\":\"18-0\"}\n\n"
        );
        let draining = End { reason: EndReason::Draining, id: None, retry_ms: 300 };
        assert_eq!(
            encoded(&Control::End(draining)),
            "retry: 300\nevent: stream-end\ndata: {\"reason\":\"draining\"}\n\n"
        );
        let busy = End { reason: EndReason::Busy, id: Some(ID), retry_ms: 6_000 };
        assert_eq!(
            encoded(&Control::End(busy)),
            "retry: 6000\nid: 17-4\nevent: stream-end\ndata: {\"reason\":\"busy\"}\n\n"
        );
        assert_eq!(
            encoded(&Control::Auth(Duration::from_secs(60))),
            "event: stream-auth\ndata: {\"expires_in\":60}\n\n"
        );
        assert_eq!(encoded(&Control::Checkpoint(ID)), "id: 17-4\n\n");
        assert_eq!(encoded(&Control::KeepAlive), ":\n\n");
        assert_eq!(encoded(&Control::Waiting), ":\n", "no empty line, which would end a message");
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
        let message = encoded(&Control::Gap(Box::new(missing)));
        assert!(message.len() < 4_096);
        assert!(message.contains("\"topics_more\":9900"));
    }
}
