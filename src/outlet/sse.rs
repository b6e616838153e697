//! Format of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    model::{
        control::{Control, End, Open},
        encode::{Encode, Format, append_fitting},
        event::Event,
    },
    outlet::format::{
        JsonFormat,
        control::{AuthData, EndData, FoldedData, GapData, OpenData, PresenceData, json},
    },
};

/// Server-sent events with the data as it was published.
pub const SSE: Format = Format(&Sse { name: "sse", json: None });
/// Server-sent events with messages as JSON.
pub(crate) const SSE_MESSAGES: Format =
    Format(&Sse { name: "sse-message", json: Some(JsonFormat::Message) });
/// Server-sent events with CloudEvents.
pub(crate) const SSE_CLOUD_EVENTS: Format =
    Format(&Sse { name: "sse-cloudevents", json: Some(JsonFormat::CloudEvent) });

/// Format of server-sent events.
#[derive(Debug)]
struct Sse {
    name: &'static str,
    /// Format of the data. `None` is the data as it was published: see [`Event::frame`].
    json: Option<JsonFormat>,
}

/// Comment, which every parser ignores.
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");
/// Comment before the first message. No empty line may follow it: that would end a message without
/// an id, which by the standard resets the reader's last event id.
const WAITING: Bytes = Bytes::from_static(b":\n");

impl Encode for Sse {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outlet(&self) -> &'static str {
        "sse"
    }

    fn event(&self, event: &Event) -> Bytes {
        let Some(format) = self.json else { return event.frame().clone() };
        let mut out = Vec::with_capacity(event.size());
        out.extend_from_slice(event.frame_head());
        out.extend_from_slice(b"data: ");
        format.write(event, &mut out);
        out.extend_from_slice(b"\n\n");
        out.shrink_to_fit();
        out.into()
    }

    fn append(&self, events: &[Arc<Event>], bytes_max: usize, batch: &mut BytesMut) -> usize {
        match self.json {
            None => append_fitting(events.iter().map(|event| event.frame()), bytes_max, batch),
            Some(_) => append_fitting(events.iter().map(|it| self.event(it)), bytes_max, batch),
        }
    }

    fn control(&self, control: &Control) -> Bytes {
        match control {
            Control::Open(opened) => open(opened),
            Control::Gap(gap) => {
                let data = json(&GapData::of(gap));
                format!("event: stream-gap\ndata: {data}\n\n").into()
            }
            Control::Folded(folded) => {
                let data = json(&FoldedData::of(folded));
                format!("event: stream-folded\ndata: {data}\n\n").into()
            }
            Control::Auth(left) => {
                let data = json(&AuthData { expires_in: left.as_secs() });
                format!("event: stream-auth\ndata: {data}\n\n").into()
            }
            Control::Presence(presence) => {
                let data = json(&PresenceData::of(presence));
                format!("event: stream-presence\ndata: {data}\n\n").into()
            }
            Control::Checkpoint(id) => format!("id: {id}\n\n").into(),
            Control::KeepAlive => KEEP_ALIVE,
            Control::Waiting => WAITING,
            Control::End(ended) => end(ended),
        }
    }
}

fn open(open: &Open) -> Bytes {
    let Open { id, retry_ms, .. } = open;
    let data = json(&OpenData::of(open));
    // Each stream sends this message. `format!` would take more than a thousand instructions.
    let (mut retry, mut time, mut sequence) =
        (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    [
        "retry: ",
        retry.format(*retry_ms),
        "\nid: ",
        time.format(id.time_ms),
        "-",
        sequence.format(id.sequence),
        "\nevent: stream-open\ndata: ",
        &data,
        "\n\n",
    ]
    .concat()
    .into()
}

fn end(end: &End) -> Bytes {
    let id = end.id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let (retry_ms, data) = (end.retry_ms, json(&EndData::of(end)));
    format!("retry: {retry_ms}\n{id}event: stream-end\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        control::{EndReason, Folded},
        event::Draft,
        event_id::EventId,
        gap::{Gap, GapReason},
        message::Message,
        topic::Topic,
    };

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
            topics: vec!["orders".parse().unwrap(), "orders.*".parse().unwrap()],
            resumed: true,
            retry_ms: 2_731,
        };
        assert_eq!(
            encoded(&Control::Open(Box::new(open))),
            "retry: 2731\nid: 17-4\nevent: stream-open\n\
             data: {\"stream\":\"9f2c\",\"topics\":[\"orders\",\"orders.*\"],\"resumed\":true}\n\n"
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

    #[test]
    fn counts_of_very_many_keys_stay_small_and_name_the_largest() {
        let mut few = Folded::new(ID, EventId { time_ms: 18, sequence: 0 });
        few.add("a b", 2);
        few.add("", 3);
        few.add("a b", 4);
        assert_eq!(
            encoded(&Control::Folded(Box::new(few))),
            "event: stream-folded\ndata: {\"events\":9,\"after\":\"17-4\",\"upto\":\"18-0\",\
             \"keys\":{\"\":3,\"a b\":6}}\n\n"
        );
        let mut many = Folded::new(ID, ID);
        (0..10_000).for_each(|n| many.add(&format!("{n:01000}"), n + 1));
        let message = encoded(&Control::Folded(Box::new(many)));
        assert!(message.len() < 16_384 && message.contains(":10000}"), "{}", message.len());
        assert!(message.contains("\"keys_more\":9992"));
    }

    #[test]
    fn events_keep_their_id_and_type_in_every_format() {
        let mut message = Message::for_tests("orders", "{\n\"a\": 1}");
        message.attributes.insert("event".to_owned(), "made".to_owned());
        let event = Draft::new(message).seal(ID);
        let encoded = |format: Format| String::from_utf8(format.event(&event).to_vec()).unwrap();
        assert_eq!(encoded(SSE), "id: 17-4\nevent: made\ndata: {\ndata: \"a\": 1}\n\n");
        assert_eq!(
            encoded(SSE_MESSAGES),
            "id: 17-4\nevent: made\ndata: {\"id\":\"17-4\",\"topic\":\"orders\",\
             \"attributes\":{\"event\":\"made\"},\"data\":{\"a\": 1}}\n\n"
        );
        let start = "id: 17-4\nevent: made\ndata: {\"datacontenttype\":\"application/json\",";
        assert!(encoded(SSE_CLOUD_EVENTS).starts_with(start));
    }
}
