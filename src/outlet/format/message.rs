//! Format `message`: an event as an object with the fields of its Pub/Sub message.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{append_json, payload::Payload, rfc3339};
use crate::model::event::Event;

/// Fields of a message. A field that the message does not have is left out.
#[derive(Serialize)]
struct Fields<'a> {
    /// Id of the event, to resume from.
    id: String,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    payload: Payload<'a>,
}

/// Appends the id, the topic and the data of one event to `out`.
pub(super) fn write_data(event: &Event, out: &mut Vec<u8>) {
    let data = event.data();
    let fields = Fields {
        id: event.id.to_string(),
        topic: event.topic.as_str(),
        message_id: None,
        publish_time: None,
        ordering_key: None,
        attributes: BTreeMap::new(),
        payload: Payload::of(&data),
    };
    append_json(&fields, out);
}

/// Appends one event to `out`.
pub(super) fn write(event: &Event, out: &mut Vec<u8>) {
    let data = event.data();
    let fields = Fields {
        id: event.id.to_string(),
        topic: event.topic.as_str(),
        message_id: event.message_id(),
        publish_time: event.publish_time_ms.and_then(rfc3339),
        ordering_key: event.ordering_key(),
        attributes: event.attributes().collect(),
        payload: Payload::of(&data),
    };
    append_json(&fields, out);
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{
            event::{Draft, Event},
            event_id::EventId,
            message::Message,
        },
        outlet::format::{
            JsonFormat,
            fixture::{event, written},
        },
    };

    fn message(event: &Event) -> String {
        written(JsonFormat::Message, event)
    }

    #[test]
    fn a_message_has_its_fields_and_no_others() {
        assert_eq!(
            message(&event(b"{\"id\":1}", &[("event", "created"), ("a", "\n")])),
            r#"{"id":"17-4","topic":"orders","message_id":"7","#.to_owned()
                + r#""publish_time":"2021-02-26T19:13:55.749Z","#
                + r#""attributes":{"a":"\n","event":"created"},"data":{"id":1}}"#
        );
        let plain = Message {
            ordering_key: Some("k".to_owned()),
            publish_time_ms: Some(u64::MAX),
            ..Message::for_tests("orders", "")
        };
        assert_eq!(
            message(&Draft::new(plain).seal(EventId { time_ms: 17, sequence: 4 })),
            r#"{"id":"17-4","topic":"orders","ordering_key":"k"}"#
        );
    }
}
