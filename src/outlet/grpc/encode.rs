//! Format of gRPC: each event and each control message is a message `Record` with its prefix. The
//! events of all streams in a group are encoded once.

use bytes::Bytes;
use prost_types::Timestamp;

use super::{
    message::encoded, proto::stream_events as proto, proto::stream_events::record::Record as Kind,
    record,
};
use crate::model::{
    control::Control,
    encode::{Encode, Format},
    event::Event,
};

/// Format of gRPC.
#[derive(Debug)]
struct Grpc;

/// Records of gRPC.
pub(super) const GRPC: Format = Format(&Grpc);

impl Encode for Grpc {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn outlet(&self) -> &'static str {
        "grpc"
    }

    fn event(&self, event: &Event) -> Bytes {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let event = proto::Event {
            id: event.id.to_string(),
            topic: event.topic.as_str().to_owned(),
            message_id: text(event.message_id()),
            publish_time: event.publish_time_ms.and_then(timestamp),
            ordering_key: text(event.ordering_key()),
            attributes: event.attributes().map(owned).collect(),
            data: event.data().into_owned().into(),
        };
        let record = Some(Kind::Event(event));
        encoded(&proto::Record { sub: String::new(), record })
    }

    fn control(&self, control: &Control) -> Bytes {
        encoded(&record::of_control(String::new(), control))
    }
}

/// Returns a time in Unix milliseconds. `None` when it is after the year 9999, the last one of the
/// type.
fn timestamp(time_ms: u64) -> Option<Timestamp> {
    const SECONDS_MAX: i64 = 253_402_300_799;
    let seconds = i64::try_from(time_ms / 1_000).ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
    let nanos = i32::try_from(time_ms % 1_000 * 1_000_000).ok()?;
    Some(Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        model::{event::Draft, event_id::EventId, message::Message},
        outlet::grpc::message::PREFIX_BYTES,
    };

    fn event_of(message: Message) -> proto::Event {
        let event = Draft::new(message).seal(EventId { time_ms: 17, sequence: 4 });
        let encoded = GRPC.event(&event);
        assert_eq!(encoded, GRPC.event(&event), "an event is encoded again for each slice");
        assert_eq!(encoded[0], 0);
        assert_eq!(encoded[1..5], u32::try_from(encoded.len() - 5).unwrap().to_be_bytes());
        let record = proto::Record::decode(&encoded[PREFIX_BYTES..]).unwrap();
        assert_eq!(record.sub, "");
        let Some(Kind::Event(event)) = record.record else { panic!("{record:?}") };
        event
    }

    #[test]
    fn an_event_has_the_fields_of_its_message() {
        let attributes = [("event", "created"), ("a", "\n"), ("ä", "")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let message = Message {
            attributes: attributes.clone().into(),
            message_id: Some("7".to_owned()),
            ordering_key: Some("k".to_owned()),
            publish_time_ms: Some(1_614_366_835_749),
            ..Message::for_tests("orders", vec![0, 255, b'\r', b'\n', 0])
        };
        let event = proto::Event {
            id: "17-4".to_owned(),
            topic: "orders".to_owned(),
            message_id: "7".to_owned(),
            publish_time: Some(Timestamp { seconds: 1_614_366_835, nanos: 749_000_000 }),
            ordering_key: "k".to_owned(),
            attributes: attributes.into(),
            data: vec![0, 255, b'\r', b'\n', 0].into(),
        };
        assert_eq!(event_of(message), event);
        let late = Message {
            publish_time_ms: Some(253_402_300_800_000),
            ..Message::for_tests("orders", "")
        };
        let (id, topic) = ("17-4".to_owned(), "orders".to_owned());
        assert_eq!(event_of(late), proto::Event { id, topic, ..proto::Event::default() });
    }
}
