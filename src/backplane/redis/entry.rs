//! What an entry of the log says.

use std::collections::{BTreeMap, HashMap};

use redis::{Cmd, FromRedisValue as _, Value};

use crate::model::message::Message;

/// The form of entries that this program writes and reads. Others are of a newer program, in the
/// middle of an upgrade, or of none.
const FORMAT: &str = "1";

/// An entry as it was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Message(Message),
    /// The log may have forgotten something before this.
    Break {
        reason: String,
    },
    /// It is there and cannot be read: its readers have to be told that something is missing.
    Unreadable {
        reason: String,
    },
}

/// Adds a message's fields and values to a command. Every entry has the same fields, which Redis
/// then stores only once for many of them.
pub fn write(command: &mut Cmd, message: &Message) {
    let attributes = if message.attributes.is_empty() {
        String::new()
    } else {
        // Texts as keys and values: nothing in it can fail.
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

/// Reads an entry's fields.
pub fn read(fields: HashMap<String, Value>) -> Entry {
    let mut fields = Fields(fields);
    let format = fields.text("format").unwrap_or_default();
    if format != FORMAT {
        let reason = format!("its format is {format:?}, and this gateway reads only {FORMAT}");
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

struct Fields(HashMap<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Option<String> {
        String::from_redis_value(self.0.remove(name)?).ok()
    }

    fn message(&mut self) -> Option<Message> {
        let Some(Value::BulkString(data)) = self.0.remove("data") else { return None };
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let attributes = match filled(self.text("attributes")?) {
            None => BTreeMap::new(),
            Some(json) => serde_json::from_str(&json).ok()?,
        };
        let publish_time_ms = match filled(self.text("publishTimeMs")?) {
            None => None,
            Some(time) => Some(time.parse().ok()?),
        };
        Some(Message {
            topic: self.text("topic")?.parse().ok()?,
            data: data.into(),
            attributes,
            ordering_key: filled(self.text("orderingKey")?),
            message_id: filled(self.text("messageId")?),
            publish_time_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis::Arg;

    use super::*;

    /// As Redis would give it back.
    fn stored(message: &Message) -> HashMap<String, Value> {
        let mut command = Cmd::new();
        write(&mut command, message);
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
    fn a_message_is_read_as_it_was_written() {
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
            assert_eq!(read(stored(&message)), Entry::Message(message));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let with = |name: &str, text: &str| {
            let mut fields = stored(&message());
            fields.insert(name.into(), Value::BulkString(text.into()));
            read(fields)
        };
        for (name, text) in
            [("format", "2"), ("topic", "a/b"), ("attributes", "["), ("publishTimeMs", "soon")]
        {
            assert!(matches!(with(name, text), Entry::Unreadable { .. }), "{name}");
        }
        assert!(matches!(read(HashMap::new()), Entry::Unreadable { .. }));
        assert_eq!(with("break", "server"), Entry::Break { reason: "server".into() });
    }
}
