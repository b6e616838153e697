//! Entries of the log, encoded as the fields of a Redis stream.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

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

/// Adds the values of [`FIELDS`] to an argument of `lua/append.lua`, each after its length. A text
/// that is empty is decoded as `None`.
pub(crate) fn encode(message: &Message, argument: &mut impl BufMut) {
    let attributes = if message.attributes.is_empty() {
        String::new()
    } else {
        // Cannot fail: keys and values are strings.
        serde_json::to_string(&message.attributes).unwrap_or_default()
    };
    let mut time = itoa::Buffer::new();
    let values: [&[u8]; FIELDS.len()] = [
        message.topic.as_str().as_bytes(),
        &message.data,
        attributes.as_bytes(),
        message.ordering_key.as_deref().unwrap_or_default().as_bytes(),
        message.message_id.as_deref().unwrap_or_default().as_bytes(),
        message.publish_time_ms.map_or("", |time_ms| time.format(time_ms)).as_bytes(),
    ];
    for value in values {
        // Cannot fail: bodies are limited to some megabytes.
        argument.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        argument.put_slice(value);
    }
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
    use bytes::Buf as _;

    use super::*;

    /// Encodes a message and returns the names and values that Redis stores.
    fn stored(message: &Message) -> Vec<Vec<u8>> {
        let mut argument = Vec::new();
        encode(message, &mut argument);
        let mut rest = &*argument;
        let values = FIELDS.map(|_| {
            let len = rest.get_u32();
            rest.copy_to_bytes(len as usize).to_vec()
        });
        assert!(rest.is_empty());
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
