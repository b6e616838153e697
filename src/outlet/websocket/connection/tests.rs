//! Tests of a connection without a socket: bytes go in, and steps come out.

use std::{cell::RefCell, rc::Rc, task::Waker, time::Duration};

use actix_web::web;
use bytes::{Buf as _, Bytes};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CLOSE_TIMEOUT, Connection, Step, UNCLAIMED_BYTES};
use crate::{
    hub::{DedupLimits, Hub, Limits, RingLimits},
    inlet::publish::PublishEndpoint,
    limits::budget::Budget,
    model::message::Message,
    net::stall::StallDetector,
    outlet::{
        client::Client,
        events::Worker,
        websocket::{command, encode::format_of, frame},
    },
    stream::{StreamContext, drive::reactor::Reactor, request::Parameters},
};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Connection, and the time that only the test changes.
struct Fixture {
    hub: Hub,
    connection: Connection,
    now: Instant,
}

/// What a connection wrote.
#[derive(Debug, PartialEq)]
enum Frame {
    Record(Value),
    /// Part of a message, with its first byte.
    Part(u8),
    Ping,
    Pong(Bytes),
    Close(u16),
}

impl Fixture {
    fn new() -> Self {
        Self::with_input_max(usize::MAX)
    }

    /// Creates a connection to a gateway with memory for so many bytes of clients.
    fn with_input_max(bytes: usize) -> Self {
        let limits = Limits {
            ring: RingLimits { events: 100, bytes: usize::MAX },
            ring_age_ms: 60_000,
            ring_bytes_total: usize::MAX,
            topics: 100,
            dedup: DedupLimits { age_ms: 0, ids: 0, ids_total: 0 },
            subscribers: 100,
            followed_bytes: usize::MAX,
            filters: 100,
        };
        let hub = Hub::new(limits, 7, 1);
        let reactor = Reactor::new(StallDetector::new(KEEP_ALIVE), |_| {}).unwrap();
        let worker = web::Data::new(Worker::new(hub.add_shard(), reactor));
        let mut context = StreamContext::for_tests(hub.clone());
        context.socket_input = Budget::new(bytes);
        let context = web::Data::new(context);
        let publish = web::Data::new(PublishEndpoint::for_tests(hub.clone()));
        let client = Client { context, worker, publish, address: None, grant: RefCell::default() };
        let now = Instant::now();
        Self { hub, connection: Connection::new(Rc::new(client), now), now }
    }

    /// Opens the stream of the query.
    fn with_stream() -> Self {
        let mut fixture = Self::new();
        let parameters = Parameters { topic: vec!["orders".to_owned()], ..Parameters::default() };
        let session = fixture.connection.client.open(parameters, None, format_of).unwrap();
        fixture.connection.add(String::new(), session);
        assert_eq!(fixture.record()["type"], "open");
        fixture
    }

    fn publish(&self, data: impl Into<Bytes>) {
        self.hub.publish(Message::for_tests("orders", data), 2);
    }

    /// Sends a masked frame.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first];
        if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
            bytes.push(0x80 | short);
        } else {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        bytes.extend([0; 4]);
        bytes.extend_from_slice(payload);
        self.connection.receive(&bytes, self.now);
    }

    /// Sends a command, and carries it out.
    async fn command(&mut self, command: Value) {
        self.send(0x81, command.to_string().as_bytes());
        let text = self.connection.take_command(self.now).unwrap();
        let finished = command::run(self.connection.client(), text).await;
        self.connection.finish(finished, self.now);
    }

    fn next(&mut self) -> Step {
        self.connection.next(self.now, Waker::noop())
    }

    /// Returns the frames of the next write. Steps that yield are passed over.
    fn frames(&mut self) -> Vec<Frame> {
        loop {
            match self.next() {
                Step::Write(bytes) => return parse(bytes),
                Step::Yield => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn record(&mut self) -> Value {
        match self.frames().pop() {
            Some(Frame::Record(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    fn is_waiting(&mut self) -> bool {
        matches!(self.next(), Step::WaitUntil(_))
    }
}

fn parse(mut bytes: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let first = bytes.get_u8();
        let length = match bytes.get_u8() {
            126 => usize::from(bytes.get_u16()),
            short => usize::from(short),
        };
        let payload = bytes.split_to(length);
        frames.push(match first {
            0x81 => Frame::Record(serde_json::from_slice(&payload).unwrap()),
            0x88 => Frame::Close(u16::from_be_bytes(*payload.first_chunk().unwrap())),
            0x89 => Frame::Ping,
            0x8a => Frame::Pong(payload),
            part => Frame::Part(part),
        });
    }
    frames
}

#[tokio::test]
async fn pings_and_closes_go_between_the_parts_of_an_event_and_records_behind_it() {
    let mut fixture = Fixture::with_stream();
    fixture.publish(vec![b'x'; 40_000]);
    assert_eq!(fixture.frames(), [Frame::Part(0x01)]);
    fixture.send(0x89, b"a");
    fixture.send(0x81, b"{\"type\":\"unsubscribe\"}");
    assert_eq!(fixture.frames(), [Frame::Pong(Bytes::from_static(b"a"))]);
    assert!(fixture.connection.take_command(fixture.now).is_none(), "a stream is within an event");
    assert_eq!(fixture.frames(), [Frame::Part(0x00)]);
    assert_eq!(fixture.frames(), [Frame::Part(0x80)]);
    assert!(fixture.connection.take_command(fixture.now).is_some());
    fixture.publish(vec![b'x'; 40_000]);
    assert_eq!(fixture.frames(), [Frame::Part(0x01)]);
    fixture.send(0x82, b"binary");
    assert_eq!(fixture.frames(), [Frame::Close(1003)]);
    assert!(matches!(fixture.next(), Step::Close));
}

#[tokio::test]
async fn one_close_frame_is_sent_and_that_of_the_client_ends_the_wait() {
    for is_answered in [true, false] {
        let mut fixture = Fixture::with_stream();
        fixture.now += Duration::from_secs(3_600);
        let mut frames = fixture.frames();
        if matches!(frames.as_slice(), [Frame::Record(record), _] if record["type"] == "checkpoint")
        {
            frames = fixture.frames();
        }
        let [Frame::Record(end), Frame::Close(1001)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &json!("max-age")));
        assert!(fixture.is_waiting());
        fixture.send(0x89, b"not answered");
        fixture.send(0x81, b"{\"type\":\"subscribe\"}");
        assert!(fixture.is_waiting());
        if is_answered {
            fixture.send(0x88, &1001_u16.to_be_bytes());
        } else {
            fixture.now += CLOSE_TIMEOUT;
        }
        assert!(matches!(fixture.next(), Step::Close));
    }
}

#[tokio::test]
async fn the_end_of_one_stream_leaves_the_others_open() {
    let mut fixture = Fixture::with_stream();
    fixture.now += Duration::from_secs(1);
    fixture.command(json!({"type": "subscribe", "sub": "a"})).await;
    assert_eq!(fixture.record(), json!({"type": "ok"}));
    assert_eq!(fixture.record()["sub"], "a");
    fixture.publish("1");
    let subs = [fixture.record(), fixture.record()].map(|event| event["sub"].clone());
    assert!(subs.contains(&json!("a")) && subs.contains(&Value::Null), "{subs:?}");
    fixture.command(json!({"type": "unsubscribe", "sub": ""})).await;
    assert_eq!(fixture.record(), json!({"type": "ok"}));
    fixture.publish("2");
    assert_eq!(fixture.record()["sub"], "a");
    assert!(fixture.is_waiting());
    fixture.command(json!({"type": "unsubscribe", "sub": "a"})).await;
    assert_eq!(fixture.record(), json!({"type": "ok"}));
    assert!(fixture.is_waiting(), "without a stream it stays open");
}

#[tokio::test]
async fn silence_is_pinged_and_a_silent_client_is_closed() {
    for mut fixture in [Fixture::new(), Fixture::with_stream()] {
        for _ in 0..2 {
            fixture.now += KEEP_ALIVE;
            assert_eq!(fixture.frames(), [Frame::Ping]);
            assert!(fixture.is_waiting());
        }
        fixture.send(0x8a, b"");
        for _ in 0..2 {
            fixture.now += KEEP_ALIVE;
            assert_eq!(fixture.frames(), [Frame::Ping]);
        }
        fixture.now += KEEP_ALIVE;
        let frames = fixture.frames();
        let [Frame::Record(end), Frame::Close(4408)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(end["reason"], "silent");
        assert!(end["retry"].is_u64(), "it may come back: {end}");
    }
}

#[tokio::test]
async fn messages_are_bounded_in_number_and_in_a_second() {
    let mut fixture = Fixture::with_stream();
    for _ in 0..20 {
        fixture.send(0x81, b"{}");
    }
    assert!(!fixture.connection.wants_input(), "8 commands wait");
    for _ in 0..20 {
        assert!(fixture.connection.take_command(fixture.now).is_some());
    }
    assert!(fixture.connection.take_command(fixture.now).is_none());
    for second in 0..3 {
        fixture.now += Duration::from_secs(1);
        for _ in 0..100 {
            fixture.send(0x8a, b"");
        }
        assert!(fixture.is_waiting(), "{second}");
    }
    fixture.send(0x8a, b"");
    let frames = fixture.frames();
    assert!(matches!(&frames[..], [Frame::Record(_), Frame::Close(4429)]), "{frames:?}");
    let closed = &fixture.connection.client.context.metrics.websockets_closed;
    assert_eq!(closed.with_label_values(&["4429"]).get(), 1);
}

#[tokio::test]
async fn answers_that_are_not_read_stop_the_input() {
    let mut fixture = Fixture::with_stream();
    let payload = [b'a'; 125];
    let mut sent = 0;
    while fixture.connection.wants_input() {
        fixture.send(0x89, &payload);
        fixture.now += Duration::from_millis(20);
        sent += 1;
    }
    assert!((100..200).contains(&sent), "{sent}");
    assert_eq!(fixture.frames().len(), sent);
    assert!(fixture.connection.wants_input());
}

#[tokio::test]
async fn what_clients_have_sent_has_a_limit_over_all_connections() {
    let mut fixture = Fixture::with_input_max(30_000);
    fixture.send(0x01, &vec![b'x'; 30_000]);
    let held = fixture.connection.client.context.socket_input.bytes();
    assert_eq!(held, 30_000 - UNCLAIMED_BYTES);
    fixture.send(0x00, &vec![b'x'; 10_000]);
    let frames = fixture.frames();
    let [Frame::Record(end), Frame::Close(1013)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(end["reason"], "busy");
    let context = fixture.connection.client.context.clone();
    drop(fixture);
    assert_eq!(context.socket_input.bytes(), 0);
    // A message that is carried out holds nothing.
    let mut fixture = Fixture::with_input_max(30_000);
    fixture.send(0x81, &vec![b' '; 30_000]);
    assert_eq!(fixture.connection.take_command(fixture.now).map(|text| text.len()), Some(30_000));
    assert_eq!(fixture.connection.client.context.socket_input.bytes(), 0);
}

#[test]
fn a_ping_is_a_frame_without_payload() {
    let mut out = bytes::BytesMut::new();
    frame::write_ping(&mut out);
    assert_eq!(&out[..], [0x89, 0]);
}
