//! Entries of the log, encoded as the fields of a Redis stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use redis::Cmd;

use crate::model::message::Message;

/// Format of the entries that this program writes and reads. During an upgrade a newer program may
/// write another format.
pub(crate) const FORMAT: &str = "1";

/// Names of the fields of a message, after the field `format`. All entries have the same fields in
/// the same order, since Redis then stores the names only once for many entries.
pub(crate) const FIELDS: [&str; 6] =
    ["topic", "data", "attributes", "orderingKey", "messageId", "publishTimeMs"];

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

/// Adds the values of [`FIELDS`] to a command. A text that is empty is decoded as `None`.
pub(crate) fn encode(command: &mut Cmd, message: &Message) {
    command.arg(message.topic.as_str()).arg(&*message.data);
    if message.attributes.is_empty() {
        command.arg("");
    } else {
        // Cannot fail: keys and values are strings.
        command.arg(serde_json::to_string(&message.attributes).unwrap_or_default());
    }
    command.arg(message.ordering_key.as_deref().unwrap_or_default());
    command.arg(message.message_id.as_deref().unwrap_or_default());
    match message.publish_time_ms {
        Some(time_ms) => command.arg(itoa::Buffer::new().format(time_ms)),
        None => command.arg(""),
    };
}

/// Names and values of the fields of an entry.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(pub(crate) Vec<(&'a [u8], &'a [u8])>);

impl<'a> Fields<'a> {
    /// Returns the value of a field. `None` without such a field.
    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|field| field.0 == name.as_bytes()).map(|field| field.1)
    }

    /// Returns the value of a field. `None` without such a field, or if the value is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }
}

/// Decodes the fields of an entry.
pub(crate) fn decode(fields: &Fields<'_>) -> Entry {
    let format = fields.text("format").unwrap_or_default();
    if format != FORMAT {
        let reason = format!("its format is {format:?}, but this gateway reads only {FORMAT:?}");
        return Entry::Unreadable { reason };
    }
    if let Some(reason) = fields.text("break") {
        return Entry::Break { reason: reason.to_owned() };
    }
    match decode_message(fields) {
        Some(message) => Entry::Message(message),
        None => Entry::Unreadable { reason: "a field is missing or malformed".into() },
    }
}

/// Decodes a message. `None` if a field is missing or malformed.
fn decode_message(fields: &Fields<'_>) -> Option<Message> {
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = match fields.text("attributes")? {
        "" => BTreeMap::new(),
        json => serde_json::from_str(json).ok()?,
    };
    let publish_time_ms = match fields.text("publishTimeMs")? {
        "" => None,
        time => Some(time.parse().ok()?),
    };
    Some(Message {
        topic: fields.text("topic")?.parse().ok()?,
        data: Bytes::copy_from_slice(fields.bytes("data")?),
        attributes,
        ordering_key: non_empty(fields.text("orderingKey")?),
        message_id: non_empty(fields.text("messageId")?),
        publish_time_ms,
    })
}

#[cfg(test)]
mod tests {
    use redis::Arg;

    use super::*;

    /// Encodes a message and returns the names and values that Redis stores.
    fn stored(message: &Message) -> Vec<Vec<u8>> {
        let mut command = Cmd::new();
        encode(&mut command, message);
        let text = |arg| match arg {
            Arg::Simple(bytes) => <[u8]>::to_vec(bytes),
            _ => panic!("only plain arguments"),
        };
        let values: Vec<_> = command.args_iter().map(text).collect();
        assert_eq!(values.len(), FIELDS.len());
        let fields = FIELDS.iter().map(|name| name.as_bytes().to_vec()).zip(values);
        let format = [b"format".to_vec(), FORMAT.into()];
        format.into_iter().chain(fields.flat_map(|(name, value)| [name, value])).collect()
    }

    fn fields(texts: &[Vec<u8>]) -> Fields<'_> {
        Fields(texts.chunks(2).map(|pair| (&*pair[0], &*pair[1])).collect())
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
            assert_eq!(decode(&fields(&stored(&message))), Entry::Message(message));
        }
    }

    #[test]
    fn invalid_entries_are_reported_as_unreadable() {
        let with = |name: &str, text: &str| {
            let stored = stored(&message());
            let mut fields = fields(&stored);
            fields.0.retain(|field| field.0 != name.as_bytes());
            fields.0.push((name.as_bytes(), text.as_bytes()));
            decode(&fields)
        };
        for (name, text) in
            [("format", "2"), ("topic", "a/b"), ("attributes", "["), ("publishTimeMs", "soon")]
        {
            assert!(matches!(with(name, text), Entry::Unreadable { .. }), "{name}");
        }
        assert!(matches!(decode(&Fields::default()), Entry::Unreadable { .. }));
        assert_eq!(with("break", "server"), Entry::Break { reason: "server".into() });
    }
}
