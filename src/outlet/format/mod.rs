//! Contents of outlets: an event as a JSON object (`format=`), and the JSON of control messages.
//! Each outlet decides how they are separated from each other.

pub(super) mod control;

mod cloud_event;
mod message;
mod payload;

use serde::Serialize;

use crate::model::event::Event;

/// Format of an event that is a JSON object without line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonFormat {
    /// Id, topic and data.
    Data,
    /// Fields of the Pub/Sub message.
    Message,
    /// [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
    CloudEvent,
}

impl JsonFormat {
    /// Appends one event to `out`.
    pub(super) fn write(self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Data => message::write_data(event, out),
            Self::Message => message::write(event, out),
            Self::CloudEvent => cloud_event::write(event, out),
        }
    }
}

/// Appends `value` to `out` as JSON. Maps in it have text keys only, and a vector takes everything,
/// so encoding cannot fail.
fn append_json(value: &impl Serialize, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Returns a time in Unix milliseconds as RFC 3339 text, as Pub/Sub writes it. `None` when the time
/// is after the year 9999.
fn rfc3339(time_ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod fixture {
    //! Events for the tests of formats.

    use std::sync::Arc;

    use super::JsonFormat;
    use crate::model::{
        event::{Draft, Event},
        event_id::EventId,
        message::Message,
    };

    /// Creates an event with the id `17-4`, published in 2021, with these attributes.
    pub(super) fn event(data: &[u8], attributes: &[(&str, &str)]) -> Arc<Event> {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let message = Message {
            attributes: attributes.collect(),
            message_id: Some("7".to_owned()),
            publish_time_ms: Some(1_614_366_835_749),
            ..Message::for_tests("orders", data.to_vec())
        };
        Draft::new(message).seal(EventId { time_ms: 17, sequence: 4 })
    }

    /// Returns an event in a format.
    pub(super) fn written(format: JsonFormat, event: &Event) -> String {
        let mut out = Vec::new();
        format.write(event, &mut out);
        String::from_utf8(out).unwrap()
    }
}
