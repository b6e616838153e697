//! Entries of the log, encoded as the fields of a Redis stream.

use std::collections::{BTreeMap, HashMap};

use redis::{Cmd, FromRedisValue as _, Value};

use crate::model::message::Message;

/// Format of the entries that this program writes and reads. During an upgrade a newer program may
/// write another format.
const FORMAT: &str = "1";

/// Decoded entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Message that was published.
    Message(Message),
    /// Marker that the log may have lost entries before this one. `lua/shared.lua` writes it and
    /// defines the reasons.
    Break { reason: String },
    /// Entry that cannot be decoded. Readers of the log receive a gap for it.
    Unreadable { reason: String },
}

/// Adds the fields of a message to a command. All entries have the same fields in the same order,
/// since Redis then stores the field names only once for many entries.
pub(crate) fn encode(command: &mut Cmd, message: &Message) {
    let attributes = if message.attributes.is_empty() {
        String::new()
    } else {
        // Cannot fail: keys and values are strings.
        serde_json::to_string(&message.attributes).unwrap_or_default()
    };
    let publish_time = message.publish_time_ms.map(|time| time.to_string()).unwrap_or_default();
    command
        .arg(&["format", FORMAT, "topic", message.topic.as_str(), "data"])
        .arg(&*message.data)
        .arg(&["attributes", &attributes])
        .arg(&["orderingKey", message.ordering_key.as_deref().unwrap_or_default()])
        .arg(&["messageId", message.message_id.as_deref().unwrap_or_default()])
        .arg(&["publishTimeMs", &publish_time]);
}

/// Decodes the fields of an entry.
pub(crate) fn decode(fields: HashMap<String, Value>) -> Entry {
    let mut fields = Fields(fields);
    let format = fields.text("format").unwrap_or_default();
    if format != FORMAT {
        let reason = format!("its format is {format:?}, but this gateway reads only {FORMAT:?}");
        return Entry::Unreadable { reason };
    }
    if let Some(reason) = fields.text("break") {
        return Entry::Break { reason };
    }
    match fields.message() {
        Some(message) => Entry::Message(message),
        None => Entry::Unreadable { reason: "a field is missing or malformed".into() },
    }
}

/// Fields of an entry by name. Each is removed when it is read.
struct Fields(HashMap<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Option<String> {
        String::from_redis_value(self.0.remove(name)?).ok()
    }

    /// Decodes a message. `None` if a field is missing or malformed.
    fn message(&mut self) -> Option<Message> {
        let Some(Value::BulkString(data)) = self.0.remove("data") else { return None };
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        let attributes = match non_empty(self.text("attributes")?) {
            None => BTreeMap::new(),
            Some(json) => serde_json::from_str(&json).ok()?,
        };
        let publish_time_ms = match non_empty(self.text("publishTimeMs")?) {
            None => None,
            Some(time) => Some(time.parse().ok()?),
        };
        Some(Message {
            topic: self.text("topic")?.parse().ok()?,
            data: data.into(),
            attributes,
            ordering_key: non_empty(self.text("orderingKey")?),
            message_id: non_empty(self.text("messageId")?),
            publish_time_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis::Arg;

    use super::*;

    /// Encodes a message and returns the fields as Redis returns them.
    fn stored(message: &Message) -> HashMap<String, Value> {
        let mut command = Cmd::new();
        encode(&mut command, message);
        let texts: Vec<_> = command
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => bytes.to_vec(),
                _ => panic!("only plain arguments"),
            })
            .collect();
        let pairs = texts.chunks(2).map(|pair| {
            let name = String::from_utf8(pair[0].clone()).unwrap();
            (name, Value::BulkString(pair[1].clone()))
        });
        pairs.collect()
    }

    fn message() -> Message {
        Message {
            topic: "orders".parse().unwrap(),
            data: Bytes::from_static(b"\0\xff\r\n"),
            attributes: BTreeMap::from([("event".into(), "created\n".into())]),
            ordering_key: Some("key".into()),
            message_id: Some("7".into()),
            publish_time_ms: Some(17),
        }
    }

    #[test]
    fn decoding_reverses_encoding() {
        let full = message();
        let bare = Message {
            data: Bytes::new(),
            attributes: BTreeMap::new(),
            ordering_key: None,
            message_id: None,
            publish_time_ms: None,
            ..message()
        };
        for message in [full, bare] {
            assert_eq!(decode(stored(&message)), Entry::Message(message));
        }
    }

    #[test]
    fn invalid_entries_are_reported_as_unreadable() {
        let with = |name: &str, text: &str| {
            let mut fields = stored(&message());
            fields.insert(name.into(), Value::BulkString(text.into()));
            decode(fields)
        };
        for (name, text) in
            [("format", "2"), ("topic", "a/b"), ("attributes", "["), ("publishTimeMs", "soon")]
        {
            assert!(matches!(with(name, text), Entry::Unreadable { .. }), "{name}");
        }
        assert!(matches!(decode(HashMap::new()), Entry::Unreadable { .. }));
        assert_eq!(with("break", "server"), Entry::Break { reason: "server".into() });
    }
}
