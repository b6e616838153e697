//! Reads of a session: large events, long reads, and two formats.

use super::{
    SECOND,
    fixture::{Gateway, KEEP_ALIVE, Stream, hub, topic},
};
use crate::{
    hub::{BATCH_MAX_BYTES, Start, TopicSet},
    model::{
        control::{Control, EndReason},
        encode::{Format, LINES},
        event_id::EventId,
        gap::Gap,
        message::Message,
    },
    outlet::sse::{SSE, SSE_MESSAGES},
    stream::{
        large::{LARGE_EVENTS_MAX_BYTES, LargeEvents},
        session::Next,
    },
};

/// Opens a stream that ends after a second, and takes the first slice of an event of three slices.
/// Returns the whole text of the event, and the slice. `kept_max` is the budget for large events.
fn begin_large(kept_max: usize) -> (Gateway, Stream, String, String) {
    let gateway =
        Gateway::with(hub(1), |context| context.large_events = LargeEvents::new(kept_max));
    let mut pending = gateway.pending(Start::Live);
    pending.end_at = gateway.begun + SECOND;
    let mut stream = gateway.open_pending(pending);
    stream.say_open();
    let data = "x".repeat(5 * BATCH_MAX_BYTES / 2);
    let id = gateway.publish("orders", &data);
    let slice = stream.give();
    assert_eq!((slice.len(), gateway.context.metrics.delivered.get()), (BATCH_MAX_BYTES, 0));
    (gateway, stream, format!("{id} {data}\n"), slice)
}

#[test]
fn a_large_event_is_sent_whole_in_slices_even_at_the_end_of_the_stream() {
    for kept_max in [LARGE_EVENTS_MAX_BYTES, 0] {
        let (gateway, mut stream, whole, slice) = begin_large(kept_max);
        assert_eq!(0 < gateway.context.large_events.bytes(), 0 < kept_max);
        stream.advance(SECOND);
        let rest = stream.give() + &stream.give();
        assert_eq!(slice + &rest, whole);
        assert_eq!(gateway.context.metrics.delivered.get(), 1);
        assert_eq!(gateway.context.large_events.bytes(), 0);
        assert_eq!(stream.say_end().reason, EndReason::MaxAge);
    }
}

#[test]
fn a_large_event_that_leaves_its_ring_is_sent_whole_only_if_the_stream_kept_it() {
    let (gateway, mut stream, whole, slice) = begin_large(LARGE_EVENTS_MAX_BYTES);
    let next = gateway.publish("orders", "y");
    assert_eq!(slice + &stream.give() + &stream.give(), whole);
    assert_eq!(stream.give(), format!("{next} y\n"));

    let (gateway, mut stream, ..) = begin_large(0);
    gateway.publish("orders", "y");
    assert!(matches!(stream.next(), Next::FellBehind));
    assert!(matches!(stream.next(), Next::FellBehind), "also for a driver that asks again");
    drop(stream);
    assert_eq!((gateway.ended("fell-behind"), gateway.ended("client")), (1, 0));
}

#[test]
fn a_long_read_past_events_of_other_topics_is_interrupted_by_yields() {
    let gateway = Gateway::new(hub(10_000));
    // Enough topics that they are not merged: the stream skips every event of the others.
    let names = (0..20).map(|n| topic(&format!("topic-{n}"))).collect();
    let start = Start::After(gateway.publish("topic-0", "a"));
    for _ in 0..5_000 {
        gateway.publish("another", "b");
    }
    let mut pending = gateway.pending(start);
    pending.key.topics = TopicSet::new(names);
    let mut stream = gateway.open_pending(pending);
    stream.say_open();
    assert!(matches!(stream.next(), Next::Yield));
    assert_eq!(stream.wait(), KEEP_ALIVE);
    stream.advance(KEEP_ALIVE);
    assert_eq!(stream.say(), Control::Checkpoint(gateway.hub().head()));
}

/// Events and messages that a stream sent until it waited.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    /// Ids and data of the events.
    events: Vec<(String, String)>,
    /// Cursor after each step.
    cursors: Vec<EventId>,
    opened_at: Option<EventId>,
    gaps: Vec<Gap>,
}

fn read_all(gateway: &Gateway, format: Format, start: Start) -> Reading {
    let mut pending = gateway.pending(start);
    pending.key.format = format;
    let mut stream = gateway.open_pending(pending);
    let (mut reading, mut text) = (Reading::default(), String::new());
    loop {
        match stream.next() {
            Next::Give(bytes) => text.push_str(str::from_utf8(&bytes).unwrap()),
            Next::Say(Control::Open(open)) => reading.opened_at = Some(open.id),
            Next::Say(Control::Gap(gap)) => reading.gaps.push(*gap),
            Next::WaitUntil(_) => break,
            other => panic!("unexpected: {other:?}"),
        }
        reading.cursors.push(stream.session.subscriber().unwrap().cursor());
    }
    reading.events = if format == SSE { sse_events(&text) } else { line_events(&text) };
    reading
}

fn sse_events(text: &str) -> Vec<(String, String)> {
    let field = |event: &str, name| {
        event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
    };
    let events = text.split_terminator("\n\n");
    events.map(|event| (field(event, "id: "), field(event, "data: "))).collect()
}

fn line_events(text: &str) -> Vec<(String, String)> {
    let events = text.lines().map(|line| line.split_once(' ').unwrap());
    events.map(|(id, data)| (id.to_owned(), data.to_owned())).collect()
}

#[test]
fn two_formats_encode_the_same_reads_with_the_same_ids() {
    let gateway = Gateway::new(hub(4));
    let (half, large) = ("x".repeat(BATCH_MAX_BYTES / 2), "y".repeat(2 * BATCH_MAX_BYTES));
    let all = ["a", "b", "c", &half, &large, "d"];
    let ids = all.map(|data| gateway.publish("orders", data));
    let in_sse = read_all(&gateway, SSE, Start::After(ids[0]));
    assert_eq!((in_sse.opened_at, in_sse.gaps.len()), (Some(ids[0]), 1));
    let expected = ids.iter().zip(all).skip(2).map(|(id, data)| (id.to_string(), data.to_owned()));
    assert_eq!(in_sse.events, expected.collect::<Vec<_>>());
    assert_eq!(read_all(&gateway, LINES, Start::After(ids[0])), in_sse);
}

/// Returns a message whose frame is small and whose attribute is not.
fn with_attribute(len: usize) -> Message {
    let mut message = Message::for_tests("orders", "x");
    message.attributes.insert("a".to_owned(), "y".repeat(len));
    message
}

#[test]
fn batches_are_small_also_in_a_format_that_is_longer_than_the_frame() {
    let gateway = Gateway::new(hub(100));
    let start = gateway.hub().head();
    // The third is larger than a batch.
    let lens = [BATCH_MAX_BYTES / 2, 100, 3 * BATCH_MAX_BYTES, 6_000, 6_000, 6_000, 10];
    let ids = lens.map(|len| gateway.publish_message(with_attribute(len)));
    let mut pending = gateway.pending(Start::After(start));
    pending.key.format = SSE_MESSAGES;
    let mut stream = gateway.open_pending(pending);
    stream.say_open();
    let (mut text, mut gives) = (String::new(), 0);
    while let Next::Give(bytes) = stream.next() {
        assert!(bytes.len() <= BATCH_MAX_BYTES, "{}", bytes.len());
        text.push_str(str::from_utf8(&bytes).unwrap());
        gives += 1;
    }
    let found: Vec<_> = sse_events(&text).into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, ids.map(|id| id.to_string()));
    assert_eq!(gives, 1 + 4 + 2, "a batch, four slices, two batches");
    assert_eq!(gateway.context.metrics.delivered.get(), ids.len() as u64);
}

#[test]
fn streams_of_one_format_share_a_large_event() {
    let gateway = Gateway::new(hub(100));
    let open = |format| {
        let mut pending = gateway.pending(Start::Live);
        pending.key.format = format;
        let mut stream = gateway.open_pending(pending);
        stream.say_open();
        stream
    };
    let mut streams = [SSE_MESSAGES, SSE_MESSAGES, LINES].map(open);
    gateway.publish("orders", &"x".repeat(2 * BATCH_MAX_BYTES));
    let kept = [1, 1, 2];
    let one = 2 * BATCH_MAX_BYTES;
    for (stream, events) in streams.iter_mut().zip(kept) {
        stream.give();
        let bytes = gateway.context.large_events.bytes();
        assert!((events * one..events * (one + 1_000)).contains(&bytes), "{bytes}");
    }
    drop(streams);
    assert_eq!(gateway.context.large_events.bytes(), 0);
}

/// An event that is larger than all memory for encoded events is sent to one stream at a time.
/// Other streams are cut before its first byte, and resume there.
#[test]
fn an_event_is_not_encoded_again_for_each_of_many_slices() {
    let gateway = Gateway::with(hub(10), |context| context.large_events = LargeEvents::new(1));
    let open = |format, start| {
        let mut pending = gateway.pending(start);
        pending.key.format = format;
        let mut stream = gateway.open_pending(pending);
        (stream.say_open().id, stream)
    };
    let (_, mut first) = open(LINES, Start::Live);
    let (_, mut as_published) = open(SSE, Start::Live);
    let (id, mut second) = open(SSE_MESSAGES, Start::Live);
    let data = "x".repeat(20 * BATCH_MAX_BYTES);
    gateway.publish("orders", &data);
    assert_eq!(first.give().len(), BATCH_MAX_BYTES);
    assert_eq!(as_published.give().len(), BATCH_MAX_BYTES, "its frame takes no memory");
    let bytes = gateway.context.large_events.bytes();
    assert!((data.len()..data.len() + 1_000).contains(&bytes), "{bytes}");
    assert!(matches!(second.next(), Next::Yield), "the stream does not end within a notification");
    assert!(matches!(second.next(), Next::FellBehind));
    assert_eq!(gateway.ended("fell-behind"), 1);
    drop((first, second));
    let (resumed_at, mut again) = open(SSE_MESSAGES, Start::After(id));
    assert_eq!(resumed_at, id);
    let text: String = (0..21).map(|_| again.give()).collect();
    assert!(text.contains(&data) && text.ends_with("\n\n"));
}
