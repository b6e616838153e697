//! Format of the events that a page is made of: a line with the id and the JSON of the event.

use bytes::Bytes;

use crate::{
    model::{
        control::Control,
        encode::{Encode, Format},
        event::Event,
    },
    outlet::format::JsonFormat,
};

/// Pages of messages.
pub(in crate::outlet) const POLL_MESSAGES: Format =
    Format(&Record { name: "poll-message", json: JsonFormat::Message });
/// Pages of CloudEvents.
pub(in crate::outlet) const POLL_CLOUD_EVENTS: Format =
    Format(&Record { name: "poll-cloudevents", json: JsonFormat::CloudEvent });

/// Format of one event: `<id> <json>` and a line end.
#[derive(Debug)]
struct Record {
    name: &'static str,
    json: JsonFormat,
}

impl Encode for Record {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outlet(&self) -> &'static str {
        "poll"
    }

    fn event(&self, event: &Event) -> Bytes {
        let mut out = Vec::with_capacity(event.size());
        out.extend_from_slice(format!("{} ", event.id).as_bytes());
        self.json.write(event, &mut out);
        out.push(b'\n');
        out.shrink_to_fit();
        out.into()
    }

    /// Returns an empty line: a poll reads control messages as data, and does not encode them.
    fn control(&self, _control: &Control) -> Bytes {
        Bytes::from_static(b"\n")
    }
}
