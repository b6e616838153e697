//! Format `cloudevents`: an event as a CloudEvents 1.0 object
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).
//!
//! A message that is a CloudEvent already stays one, as the [Pub/Sub
//! binding](https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md) says: its
//! attributes `ce-…` are the attributes of the event (binary mode, which Eventarc uses too), or its
//! data is the whole event (structured mode).

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    append_json,
    payload::{Payload, json},
    rfc3339,
};
use crate::model::event::Event;

/// Prefix of message attributes that are attributes of a CloudEvent.
const PREFIX: &str = "ce-";
/// Type of an event whose message names none.
const DEFAULT_TYPE: &str = "stream_events.v1.message";
/// Media type of an event in structured mode.
const STRUCTURED: &str = "application/cloudevents+json";
/// Extension attribute with the id to resume from. The attribute `id` names the message instead,
/// and is the same when Pub/Sub sends the message again.
const POSITION: &str = "lasteventid";

/// CloudEvent.
#[derive(Serialize)]
struct CloudEvent<'a> {
    #[serde(flatten)]
    attributes: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(flatten)]
    payload: Payload<'a>,
}

/// Appends one event to `out`.
pub(super) fn write(event: &Event, out: &mut Vec<u8>) {
    let data = event.data();
    let content_type = event.attributes().find(|(name, _)| *name == "content-type");
    let content_type = content_type.map(|(_, value)| value);
    if content_type.is_some_and(|value| media_type(value).eq_ignore_ascii_case(STRUCTURED))
        && let Some(mut members) = structured(&data)
    {
        let position = to_raw_value(&event.id.to_string()).ok();
        members.extend(position.map(|position| (POSITION.to_owned(), position)));
        return append_json(&members, out);
    }
    let mut attributes = BTreeMap::from([
        ("specversion", Cow::Borrowed("1.0")),
        ("id", event.message_id().map_or_else(|| event.id.to_string().into(), Cow::Borrowed)),
        ("source", format!("/topics/{}", event.topic.as_str().replace('%', "%25")).into()),
        ("type", Cow::Borrowed(DEFAULT_TYPE)),
    ]);
    let time = event.publish_time_ms.and_then(rfc3339);
    attributes.extend(time.map(|time| ("time", Cow::Owned(time))));
    attributes.extend(event.ordering_key().map(|key| ("subject", Cow::Borrowed(key))));
    attributes.extend(content_type.map(|value| ("datacontenttype", Cow::Borrowed(value))));
    // Attributes of a CloudEvent are never empty.
    let given = || event.attributes().filter(|(_, value)| !value.is_empty());
    let named = given().filter(|(name, _)| *name == "event").map(|(_, value)| ("type", value));
    let own = given().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    let own = own.filter(|(name, _)| is_attribute_name(name));
    attributes.extend(named.chain(own).map(|(name, value)| (name, Cow::Borrowed(value))));
    attributes.insert(POSITION, event.id.to_string().into());
    let payload = payload(&data, &mut attributes);
    append_json(&CloudEvent { attributes, payload }, out);
}

/// Returns the data in the form that its content type prescribes. If there is no content type, sets
/// the one of the form that the data has.
fn payload<'a>(data: &'a [u8], attributes: &mut BTreeMap<&str, Cow<'_, str>>) -> Payload<'a> {
    if data.is_empty() {
        return Payload::default();
    }
    let Some(content_type) = attributes.get("datacontenttype") else {
        let (payload, content_type) = if let Some(json) = Payload::json(data) {
            (json, "application/json")
        } else if let Some(text) = Payload::text(data) {
            (text, "text/plain; charset=utf-8")
        } else {
            (Payload::base64(data), "application/octet-stream")
        };
        attributes.insert("datacontenttype", Cow::Borrowed(content_type));
        return payload;
    };
    // A string in `data` means a JSON string if the content type is JSON. Data that is not the JSON
    // that its content type promises is therefore sent as bytes.
    let form = if is_json(content_type) { Payload::json(data) } else { Payload::text(data) };
    form.unwrap_or_else(|| Payload::base64(data))
}

/// Returns the members of an event in structured mode. `None` if the data is not one.
fn structured(data: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    let whole = json(str::from_utf8(data).ok()?)?;
    let members: BTreeMap<_, _> = serde_json::from_str(whole.get()).ok()?;
    members.contains_key("specversion").then_some(members)
}

/// Returns a media type without its parameters.
fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Returns true if data of this type is JSON.
fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type).to_ascii_lowercase();
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

/// Returns true for the names that attributes of a CloudEvent may have. `data` is none of them.
fn is_attribute_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name != "data" && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::outlet::format::{
        JsonFormat,
        fixture::{event, written},
    };

    fn cloud_event(data: &[u8], attributes: &[(&str, &str)]) -> Value {
        let text = written(JsonFormat::CloudEvent, &event(data, attributes));
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the members of an event that are not those of every event of the tests.
    fn special(data: &[u8], attributes: &[(&str, &str)]) -> Value {
        let mut event = cloud_event(data, attributes);
        let members = event.as_object_mut().unwrap();
        for name in ["specversion", "source", "id", "time", "lasteventid"] {
            members.remove(name).unwrap();
        }
        event
    }

    #[test]
    fn a_message_becomes_an_event_of_its_topic() {
        assert_eq!(
            cloud_event(b"{\"id\":1}", &[("other", "is left out")]),
            json!({
                "specversion": "1.0",
                "id": "7",
                "source": "/topics/orders",
                "type": "stream_events.v1.message",
                "time": "2021-02-26T19:13:55.749Z",
                "lasteventid": "17-4",
                "datacontenttype": "application/json",
                "data": { "id": 1 },
            })
        );
    }

    #[test]
    fn data_has_the_form_of_its_content_type() {
        let default = "stream_events.v1.message";
        let of = |data: &[u8], content_type: &str| {
            let content_type = [("content-type", content_type)];
            special(data, if content_type[0].1.is_empty() { &[] } else { &content_type })
        };
        for (data, content_type, named, member, value) in [
            (&b"x"[..], "", "text/plain; charset=utf-8", "data", json!("x")),
            (&[0xff], "", "application/octet-stream", "data_base64", json!("/w==")),
            (b"1", "text/plain", "text/plain", "data", json!("1")),
            (b"1", "Text/JSON; a=b", "Text/JSON; a=b", "data", json!(1)),
            (b"1", "application/vnd.a+json", "application/vnd.a+json", "data", json!(1)),
            (b"{", "application/json", "application/json", "data_base64", json!("ew==")),
        ] {
            let expected = json!({ "type": default, "datacontenttype": named, member: value });
            assert_eq!(of(data, content_type), expected, "{data:?} {content_type}");
        }
        assert_eq!(
            of(b"", "text/plain"),
            json!({ "type": default, "datacontenttype": "text/plain" })
        );
        assert_eq!(of(b"", ""), json!({ "type": default }));
    }

    #[test]
    fn attributes_of_a_binary_mode_event_win() {
        let attributes = [
            ("ce-id", "a"),
            ("ce-source", "//pubsub.googleapis.com/projects/p/topics/t"),
            ("ce-type", "google.cloud.pubsub.topic.v1.messagePublished"),
            ("ce-time", "2020-03-10T03:56:24Z"),
            ("ce-subject", ""),
            ("ce-traceparent", "00-1"),
            ("ce-Not-a-name", "x"),
            ("ce-data", "x"),
            ("ce-lasteventid", "1-1"),
            ("ce-datacontenttype", "text/plain"),
            ("content-type", "application/json"),
            ("event", "created"),
        ];
        assert_eq!(
            cloud_event(b"1", &attributes),
            json!({
                "specversion": "1.0",
                "id": "a",
                "source": "//pubsub.googleapis.com/projects/p/topics/t",
                "type": "google.cloud.pubsub.topic.v1.messagePublished",
                "time": "2020-03-10T03:56:24Z",
                "traceparent": "00-1",
                "lasteventid": "17-4",
                "datacontenttype": "text/plain",
                "data": "1",
            })
        );
        assert_eq!(special(b"", &[("event", "created")]), json!({ "type": "created" }));
    }

    #[test]
    fn a_structured_event_keeps_its_members() {
        let content_type = [("content-type", "application/cloudevents+json; charset=UTF-8")];
        let data = br#"{"specversion":"1.0", "id":"a","source":"/s","type":"t",
            "lasteventid":"1-1","data":{"price":1.50}}"#;
        assert_eq!(
            written(JsonFormat::CloudEvent, &event(data, &content_type)),
            r#"{"data":{"price":1.50},"id":"a","lasteventid":"17-4","#.to_owned()
                + r#""source":"/s","specversion":"1.0","type":"t"}"#
        );
        for other in [&b"[1]"[..], br#"{"id":"a"}"#] {
            let type_of = |data| special(data, &content_type)["type"].clone();
            assert_eq!(type_of(other), "stream_events.v1.message");
        }
    }
}
