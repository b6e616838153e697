//! Format of newline-delimited JSON (<https://github.com/ndjson/ndjson-spec>): one object for each
//! event or control message, each on its own line.
//!
//! A control message is an object with one member, whose name begins with `stream-`. No event has
//! such a member.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    model::{
        control::{Control, End, Open},
        encode::{Encode, Format},
        event::Event,
        event_id::EventId,
    },
    outlet::format::{
        JsonFormat,
        control::{
            AuthData, Checkpoint, EndData, Ended, FoldedData, GapData, OpenData, Opened,
            PresenceData, json,
        },
    },
};

/// Lines of messages.
pub(crate) const NDJSON_MESSAGES: Format =
    Format(&Ndjson { name: "ndjson-message", json: JsonFormat::Message });
/// Lines of CloudEvents.
pub(crate) const NDJSON_CLOUD_EVENTS: Format =
    Format(&Ndjson { name: "ndjson-cloudevents", json: JsonFormat::CloudEvent });

/// Format of newline-delimited JSON.
#[derive(Debug)]
struct Ndjson {
    name: &'static str,
    /// Format of the events.
    json: JsonFormat,
}

/// Empty line, which parsers of JSON ignore.
const KEEP_ALIVE: Bytes = Bytes::from_static(b"\n");

impl Encode for Ndjson {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outlet(&self) -> &'static str {
        "ndjson"
    }

    fn event(&self, event: &Event) -> Bytes {
        let mut out = Vec::with_capacity(event.size());
        self.json.write(event, &mut out);
        out.push(b'\n');
        out.shrink_to_fit();
        out.into()
    }

    fn control(&self, control: &Control) -> Bytes {
        match control {
            Control::Open(opened) => open(opened),
            Control::Gap(gap) => line("gap", &GapData::of(gap)),
            Control::Folded(folded) => line("folded", &FoldedData::of(folded)),
            Control::Presence(presence) => line("presence", &PresenceData::of(presence)),
            Control::Auth(left) => auth(*left),
            Control::Checkpoint(id) => checkpoint(*id),
            Control::KeepAlive | Control::Waiting => KEEP_ALIVE,
            Control::End(ended) => end(ended),
        }
    }
}

fn open(open: &Open) -> Bytes {
    let (id, data) = (open.id.to_string(), OpenData::of(open));
    line("open", &Opened { id, data, retry: open.retry_ms })
}

fn auth(left: Duration) -> Bytes {
    line("auth", &AuthData { expires_in: left.as_secs() })
}

fn checkpoint(id: EventId) -> Bytes {
    line("checkpoint", &Checkpoint { id: id.to_string() })
}

fn end(end: &End) -> Bytes {
    line("end", &Ended { data: EndData::of(end), retry: end.retry_ms })
}

/// Encodes a control message.
fn line(name: &str, data: &impl Serialize) -> Bytes {
    format!("{{\"stream-{name}\":{}}}\n", json(data)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        control::{EndReason, Folded},
        event::Draft,
        gap::{Gap, GapReason},
        message::Message,
    };

    const ID: EventId = EventId { time_ms: 17, sequence: 4 };

    fn encoded(control: &Control) -> String {
        String::from_utf8(NDJSON_MESSAGES.control(control).to_vec()).unwrap()
    }

    #[test]
    fn control_messages_are_lines_with_one_member() {
        let topics: Vec<_> = vec!["orders".parse().unwrap()];
        let open = Open {
            id: ID,
            stream: "9f2c".to_owned(),
            topics: vec!["orders".parse().unwrap(), "orders.*".parse().unwrap()],
            resumed: true,
            retry_ms: 2_731,
        };
        let gap = Gap { reason: GapReason::Evicted, topics, after: None, upto: ID };
        let end = End { reason: EndReason::Draining, id: None, retry_ms: 300 };
        let mut folded = Folded::new(ID, ID);
        folded.add("a", 2);
        for (control, line) in [
            (
                Control::Open(Box::new(open)),
                "{\"stream-open\":{\"id\":\"17-4\",\"stream\":\"9f2c\",\
                 \"topics\":[\"orders\",\"orders.*\"],\"resumed\":true,\"retry\":2731}}\n",
            ),
            (
                Control::Gap(Box::new(gap)),
                "{\"stream-gap\":{\"reason\":\"evicted\",\"topics\":[\"orders\"],\
                 \"after\":null,\"upto\":\"17-4\"}}\n",
            ),
            (Control::Auth(Duration::from_secs(60)), "{\"stream-auth\":{\"expires_in\":60}}\n"),
            (
                Control::Folded(Box::new(folded)),
                "{\"stream-folded\":{\"events\":2,\"after\":\"17-4\",\"upto\":\"17-4\",\
                 \"keys\":{\"a\":2}}}\n",
            ),
            (Control::Checkpoint(ID), "{\"stream-checkpoint\":{\"id\":\"17-4\"}}\n"),
            (Control::KeepAlive, "\n"),
            (Control::Waiting, "\n"),
            (Control::End(end), "{\"stream-end\":{\"reason\":\"draining\",\"retry\":300}}\n"),
        ] {
            assert_eq!(encoded(&control), line);
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let event = Draft::new(Message::for_tests("orders", "{\r\n\"a\":\n1}")).seal(ID);
        let line = |format: Format| String::from_utf8(format.event(&event).to_vec()).unwrap();
        assert_eq!(
            line(NDJSON_MESSAGES),
            "{\"id\":\"17-4\",\"topic\":\"orders\",\"data\":{\"a\":1}}\n"
        );
        let cloud_event = line(NDJSON_CLOUD_EVENTS);
        assert_eq!(cloud_event.find('\n'), Some(cloud_event.len() - 1), "{cloud_event}");
    }
}
