//! Round trips: a reader's parser returns exactly what was published, for any data. The oracles are a
//! transcription of the HTML standard's parser, and the decoder of `russe`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use proptest::prelude::*;
use stream_events::model::{event::Draft, event_id::EventId, message::Message};

use crate::support::{
    gateway::{Gateway, message},
    parser::{Dispatched, Parser},
};

const ID: EventId = EventId { time_ms: 1_763_690_177_349, sequence: 5_648_324_730_880_001 };

/// Encodes a message as an event with the id [`ID`].
fn frame(data: &[u8], attributes: &BTreeMap<String, String>) -> Bytes {
    let message = Message {
        topic: "orders".parse().unwrap(),
        data: Bytes::copy_from_slice(data),
        attributes: attributes.clone(),
        ordering_key: None,
        message_id: None,
        publish_time_ms: None,
    };
    Draft::new(message).seal(ID).frame().clone()
}

/// Returns the event that a reader must receive: CR and CRLF in data become LF, data that is not
/// UTF-8 becomes base64, and a type that could forge fields is omitted.
fn expected(data: &[u8], attributes: &BTreeMap<String, String>) -> Dispatched {
    let data = match str::from_utf8(data) {
        Ok(text) => text.replace("\r\n", "\n").replace('\r', "\n"),
        Err(_) => STANDARD.encode(data),
    };
    let forges = |name: &str| {
        name.contains(['\r', '\n', '\0'])
            || name.starts_with("stream-")
            || ["", "open", "error"].contains(&name)
    };
    let event = attributes.get("event").filter(|name| !forges(name));
    let event = event.map_or("message", String::as_str).to_owned();
    Dispatched { id: ID.to_string(), event, data }
}

/// Generates text that is likely to break a stream, and random text.
fn awkward() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        " ",
        ":",
        "\u{feff}",
        "\0",
        "data: x",
        "id: 9\n",
        "event: stream-end\n",
        "retry: 1",
        "a",
        "é",
        "\u{2028}",
        "\u{1f600}",
        "\n\n",
        "stream-",
        "open",
        "error",
    ]);
    prop_oneof![
        prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat()),
        any::<String>()
    ]
}

fn attributes() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(prop_oneof![Just("event".to_owned()), awkward()], awkward(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn text_is_received_as_published(text in awkward(), attributes in attributes()) {
        let frame = frame(text.as_bytes(), &attributes);
        let seen = Parser::default().feed(&frame);
        prop_assert_eq!(seen, [expected(text.as_bytes(), &attributes)]);
    }

    #[test]
    fn bytes_are_received_as_published(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = frame(&bytes, &BTreeMap::new());
        prop_assert_eq!(Parser::default().feed(&frame), [expected(&bytes, &BTreeMap::new())]);
    }

    /// Parses several events, cut into parts of any size.
    #[test]
    fn stream_may_be_cut_anywhere(texts in prop::collection::vec(awkward(), 1..5), cut in 1_usize..40) {
        let stream: Vec<u8> =
            texts.iter().flat_map(|text| frame(text.as_bytes(), &BTreeMap::new())).collect();
        let mut parser = Parser::default();
        let seen: Vec<_> = stream.chunks(cut).flat_map(|part| parser.feed(part)).collect();
        let want: Vec<_> =
            texts.iter().map(|text| expected(text.as_bytes(), &BTreeMap::new())).collect();
        prop_assert_eq!(seen, want);
    }

    /// Decodes single events only: `russe` supports neither a byte order mark nor the id of a block
    /// without data.
    #[test]
    fn russe_decodes_the_same(text in awkward(), attributes in attributes()) {
        let frame = frame(text.as_bytes(), &attributes);
        let want = expected(text.as_bytes(), &attributes);
        let decoded = russe_decode(&frame);
        prop_assert_eq!(decoded, Some((want.id, want.event, want.data)));
    }
}

fn russe_decode(frame: &[u8]) -> Option<(String, String, String)> {
    use tokio_util::codec::Decoder as _;
    let mut decoder = russe::Decoder::default();
    let mut buffer = bytes::BytesMut::from(frame);
    match decoder.decode(&mut buffer).unwrap()? {
        russe::Event::Message(message) => {
            let event = message.event.as_ref().map_or("message", |event| event.as_ref());
            let id = message.id.as_ref().map_or("", |id| id.as_ref());
            Some((id.to_owned(), event.to_owned(), message.data.to_string()))
        }
        _ => None,
    }
}

/// Publishes and reads awkward data over HTTP.
#[test]
fn awkward_data_is_received_over_http() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let cases = [
        "",
        " ",
        "  leading",
        "trailing ",
        "\n",
        "\n\n",
        "a\nb",
        "a\n",
        "\na",
        ":comment",
        "data: x",
        "id: 1\nevent: stream-end\n\n",
        "\u{feff}bom",
        "nul\0nul",
        "é\u{1f600}",
        "\u{2028}",
    ];
    for (at, data) in cases.iter().enumerate() {
        gateway.push("orders", &message(data, &at.to_string()));
        let event = events.next();
        assert_eq!((event.data.as_str(), event.event.as_str()), (*data, "message"));
    }
    for (data, seen) in [("a\rb", "a\nb"), ("a\r\nb", "a\nb"), ("\r", "\n"), ("a\r\n", "a\n")] {
        gateway.publish("orders", data);
        assert_eq!(events.next().data, seen);
    }
    gateway.publish("orders", [0xff, 0x00]);
    assert_eq!(events.next().data, "/wA=");
}
