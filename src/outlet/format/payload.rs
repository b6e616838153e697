//! Data of a message in a JSON object: as a JSON value, as text, or as base64.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

/// Fields of a JSON object that hold the data of a message. None of them when the data is empty.
#[derive(Debug, Default, Serialize)]
pub(super) struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Data<'a>>,
    /// Data that is not UTF-8, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data_base64: Option<String>,
}

/// Data that is UTF-8.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Data<'a> {
    /// JSON as it was published, without line ends.
    Json(Cow<'a, RawValue>),
    Text(&'a str),
}

impl<'a> Payload<'a> {
    /// Returns the data as a JSON value if it is JSON, else as text if it is UTF-8, else as base64.
    pub(super) fn of(data: &'a [u8]) -> Self {
        Self::json(data).or_else(|| Self::text(data)).unwrap_or_else(|| Self::base64(data))
    }

    /// Returns the data as a JSON value, if it is JSON.
    pub(super) fn json(data: &'a [u8]) -> Option<Self> {
        Some(Self { data: Some(Data::Json(json(str::from_utf8(data).ok()?)?)), data_base64: None })
    }

    /// Returns the data as text, if it is UTF-8.
    pub(super) fn text(data: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(data).ok()?;
        let data = (!text.is_empty()).then_some(Data::Text(text));
        Some(Self { data, data_base64: None })
    }

    /// Returns the data as base64.
    pub(super) fn base64(data: &[u8]) -> Self {
        Self { data: None, data_base64: Some(STANDARD.encode(data)) }
    }
}

/// Deepest nesting of JSON data that becomes a value: parsers refuse a text that is nested more
/// deeply, some at 100 levels, and one event must not make an answer with others unreadable.
const DEPTH_MAX: usize = 64;

/// Returns JSON text as a value without line ends. `None` if the text is not JSON.
pub(super) fn json(text: &str) -> Option<Cow<'_, RawValue>> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    if DEPTH_MAX < depth(value.get()) {
        return None;
    }
    if !value.get().contains(['\n', '\r']) {
        return Some(Cow::Borrowed(value));
    }
    // Strings of JSON contain no line ends, and between tokens a line end means nothing.
    let one_line = value.get().replace(['\n', '\r'], "");
    RawValue::from_string(one_line).ok().map(Cow::Owned)
}

/// Returns the largest number of objects and arrays that contain each other in JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_in_string, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            b'{' | b'[' if !is_in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !is_in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(data: &[u8]) -> String {
        serde_json::to_string(&Payload::of(data)).unwrap()
    }

    #[test]
    fn data_is_a_json_value_or_text_or_base64() {
        for (data, fields) in [
            (&b"{\"id\":1.50}"[..], r#"{"data":{"id":1.50}}"#),
            (b" [1,\r\n 2]\n", r#"{"data":[1, 2]}"#),
            (b"12345678901234567890123", r#"{"data":12345678901234567890123}"#),
            (b"null", r#"{"data":null}"#),
            (b"", "{}"),
            (b"1\n2", r#"{"data":"1\n2"}"#),
            (b"{", r#"{"data":"{"}"#),
            ("\u{feff}{}".as_bytes(), "{\"data\":\"\u{feff}{}\"}"),
            (b"\"a\nb\"", r#"{"data":"\"a\nb\""}"#),
            (&[0xff, 0xfe], r#"{"data_base64":"//4="}"#),
            (b"\"\xff\"", r#"{"data_base64":"Iv8i"}"#),
        ] {
            assert_eq!(payload(data), fields, "{data:?}");
        }
    }

    #[test]
    fn json_that_is_nested_too_deeply_is_text() {
        let nested = |levels| "[".repeat(levels) + "\"]\\\"[\"" + &"]".repeat(levels);
        for (levels, is_value) in [(1, true), (DEPTH_MAX, true), (DEPTH_MAX + 1, false)] {
            let fields = payload(nested(levels).as_bytes());
            assert_eq!(fields.starts_with("{\"data\":["), is_value, "{levels}");
        }
    }
}
