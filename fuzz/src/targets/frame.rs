//! Events on the wire, and what two parsers that are not ours make of them.
//!
//! An input is some events with 0xFE between them, each an event type, 0xFF, and data, or data
//! alone. Neither byte occurs in UTF-8, so a text can be anything.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use stream_events::model::{event::Draft, event_id::EventId, message::Message};
use tokio_util::codec::Decoder as _;

use super::parser::{Dispatched, Parser};

/// As many events as are worth it.
const EVENTS_MAX: usize = 16;

/// See the module.
pub fn run(input: &[u8]) -> &'static str {
    let events: Vec<_> = input.split(|byte| *byte == 0xfe).take(EVENTS_MAX).map(message).collect();
    let mut id = EventId { time_ms: 1_763_690_177_349, sequence: 5_648_324_730_880_001 };
    let (mut stream, mut promises) = (Vec::new(), Vec::new());
    for message in &events {
        let frame = Draft::new(message.clone()).seal(id).frame().clone();
        promises.push(promised(message, id));
        is_one_block(&frame, promises.last().unwrap());
        stream.extend_from_slice(&frame);
        id = id.next(id.time_ms + 1);
    }
    // Wherever the network, or a slow reader's slices, cut it.
    let cut = 1 + input.len() % 61;
    for cut in [cut, stream.len()] {
        let mut parser = Parser::default();
        let seen: Vec<_> = stream.chunks(cut).flat_map(|part| parser.feed(part)).collect();
        assert_eq!(seen, promises, "by the standard's parser, in pieces of {cut}");
    }
    // Once: making its decoder takes longer than all else.
    assert_eq!(by_russe(&stream, cut), promises, "by russe, in pieces of {cut}");
    match (str::from_utf8(&events[0].data), events[0].attributes.get("event")) {
        (Err(_), _) => "base64",
        _ if 1 < events.len() => "several",
        (_, None) => "plain",
        (_, Some(name)) if *name == promises[0].event => "typed",
        (_, Some(_)) => "untyped-forged",
    }
}

fn message(part: &[u8]) -> Message {
    let (name, data) = match part.iter().position(|byte| *byte == 0xff) {
        Some(at) => (str::from_utf8(&part[..at]).ok(), &part[at + 1..]),
        None => (None, part),
    };
    // Another attribute never shows, whatever its text.
    let other = ("id".to_owned(), String::from_utf8_lossy(data).into_owned());
    let event = name.map(|name| ("event".to_owned(), name.to_owned()));
    Message {
        topic: "orders".parse().unwrap(),
        data: Bytes::copy_from_slice(data),
        attributes: event.into_iter().chain([other]).collect(),
        ordering_key: None,
        message_id: None,
        publish_time_ms: None,
    }
}

/// What the README promises a reader: CR and CRLF come back as LF, what is not UTF-8 as base64, and
/// a type that would forge something is none.
fn promised(message: &Message, id: EventId) -> Dispatched {
    let data = match str::from_utf8(&message.data) {
        Ok(text) => text.replace("\r\n", "\n").replace('\r', "\n"),
        Err(_) => STANDARD.encode(&message.data),
    };
    let forges = |name: &str| {
        name.contains(['\r', '\n', '\0'])
            || name.starts_with("stream-")
            || ["", "open", "error"].contains(&name)
    };
    let event = message.attributes.get("event").filter(|name| !forges(name));
    let event = event.map_or("message", String::as_str).to_owned();
    Dispatched { id: id.to_string(), event, data }
}

/// One block of three kinds of lines, each of which begins as it must.
fn is_one_block(frame: &Bytes, promise: &Dispatched) {
    let text = str::from_utf8(frame).expect("a stream is UTF-8");
    assert!(!text.contains('\r'), "only LF ends lines");
    let lines = text.strip_suffix("\n\n").expect("an empty line ends it").split('\n');
    let mut names = lines.map(|line| line.split_once(": ").expect("a field").0);
    assert_eq!(names.next(), Some("id"));
    let typed = promise.event != "message" || text.contains("\nevent: message\n");
    assert!(!typed || names.next() == Some("event"));
    let data: Vec<_> = names.collect();
    assert_eq!(data.len(), promise.data.matches('\n').count() + 1);
    assert!(data.iter().all(|name| *name == "data"));
}

fn by_russe(stream: &[u8], cut: usize) -> Vec<Dispatched> {
    let (mut decoder, mut buffer) = (russe::Decoder::default(), BytesMut::new());
    let mut seen = Vec::new();
    for part in stream.chunks(cut) {
        buffer.extend_from_slice(part);
        while let Some(event) = decoder.decode(&mut buffer).expect("it decodes") {
            let russe::Event::Message(message) = event else { panic!("no message: {event:?}") };
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let event = message.event.as_ref().map_or("message", |event| event.as_ref());
            seen.push(Dispatched {
                id: text(message.id.as_ref().map(AsRef::as_ref)),
                event: event.to_owned(),
                data: message.data.to_string(),
            });
        }
    }
    seen
}
