//! Formats of WebSockets: each event and each control message is a text message with one JSON
//! object, whose member `type` says what it is. The events of all streams in a group are encoded
//! once, as those of the stream whose name is empty.

use bytes::Bytes;

use super::{frame::text_message, record};
use crate::{
    model::{
        control::Control,
        encode::{Encode, Format},
        event::Event,
    },
    outlet::format::{JsonFormat, control::json},
    stream::request::EventFormat,
};

/// Format of WebSockets.
#[derive(Debug)]
struct WebSocket {
    name: &'static str,
    json: JsonFormat,
}

/// Events with their data.
pub(super) const DATA: Format = Format(&WebSocket { name: "websocket", json: JsonFormat::Data });
/// Events with all fields of their messages.
pub(super) const MESSAGES: Format =
    Format(&WebSocket { name: "websocket-message", json: JsonFormat::Message });
/// Events whose data are CloudEvents.
pub(super) const CLOUD_EVENTS: Format =
    Format(&WebSocket { name: "websocket-cloudevents", json: JsonFormat::CloudEvent });

/// Returns the format of a stream.
pub(super) fn format_of(asked: EventFormat) -> Format {
    match asked {
        EventFormat::Data => DATA,
        EventFormat::Message => MESSAGES,
        EventFormat::CloudEvents => CLOUD_EVENTS,
    }
}

impl Encode for WebSocket {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outlet(&self) -> &'static str {
        "websocket"
    }

    fn event(&self, event: &Event) -> Bytes {
        let mut out = Vec::with_capacity(event.size());
        out.extend_from_slice(b"{\"type\":\"event\"");
        if let Some(kind) = event.attribute("event").filter(|kind| !kind.is_empty()) {
            out.extend_from_slice(b",\"event\":");
            out.extend_from_slice(json(&kind).as_bytes());
        }
        let at = out.len();
        if self.json == JsonFormat::CloudEvent {
            let (id, topic) = (event.id, json(&event.topic.as_str()));
            let before = format!(",\"id\":\"{id}\",\"topic\":{topic},\"data\":");
            out.extend_from_slice(before.as_bytes());
            self.json.write(event, &mut out);
            out.push(b'}');
        } else {
            // The members follow in the same object.
            self.json.write(event, &mut out);
            if let Some(brace) = out.get_mut(at) {
                *brace = b',';
            }
        }
        text_message(&out)
    }

    /// Encodes a control message of the only stream of a connection: after its end, the connection
    /// is closed.
    fn control(&self, control: &Control) -> Bytes {
        match control {
            Control::End(end) => record::end_and_close("", end),
            other => record::control("", other),
        }
    }

    fn is_framed(&self) -> bool {
        true
    }
}
