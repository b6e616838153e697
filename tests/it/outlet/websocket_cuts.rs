//! WebSockets that are cut at random bytes and resume: each stream receives what an SSE reader does.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    gateway::Gateway,
    http1,
    reader::tls_stream,
    seed,
    websocket::{Received, WebSocket},
};

const CUTS: usize = 50;
const LAST: &str = "the last";
/// The topic of the query, and that of the stream that a command opens.
const TOPICS: [&str; 2] = ["orders", "chats"];

/// A socket that ends after a number of bytes, wherever that is.
struct Cut<S> {
    socket: S,
    left: usize,
}

impl<S: Read> Read for Cut<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.left);
        let read = self.socket.read(&mut buffer[..room])?;
        self.left -= read;
        Ok(read)
    }
}

impl<S: Write> Write for Cut<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Ends the writer, also when the test fails.
struct EndWriter<'a>(&'a AtomicUsize);

impl Drop for EndWriter<'_> {
    fn drop(&mut self) {
        self.0.store(CUTS, Ordering::Relaxed);
    }
}

/// The id and the data of an event.
type Seen = (String, String);

/// What a stream has received over all connections.
#[derive(Default)]
struct Stream {
    last_id: String,
    seen: Vec<Seen>,
}

impl Stream {
    fn has_ended(&self) -> bool {
        self.seen.last().is_some_and(|(_, data)| data == LAST)
    }
}

/// Opens a connection with both streams that ends after `left` bytes.
fn connect(gateway: &Gateway, left: usize, streams: &[Stream; 2]) -> WebSocket {
    let path = format!("/ws?topic={}&last_event_id={}", TOPICS[0], streams[0].last_id);
    let socket = http1::connect(gateway.address);
    let mut socket = match &gateway.tls {
        Some(tls) => WebSocket::on(Cut { socket: tls_stream(socket, tls), left }, &path, &[]),
        None => WebSocket::on(Cut { socket, left }, &path, &[]),
    };
    socket.command(&json!({"type": "subscribe", "sub": "named", "topics": [TOPICS[1]],
                           "last_event_id": streams[1].last_id}));
    socket
}

/// Reads until the connection is cut, or both streams have received their last event.
fn read(mut socket: WebSocket, streams: &mut [Stream; 2]) {
    while !streams.iter().all(Stream::has_ended)
        && let Some(received) = socket.receive()
    {
        let Received::Text(text) = received else { continue };
        let record: Value = serde_json::from_str(&text).unwrap();
        let stream = &mut streams[usize::from(record["sub"] == "named")];
        if let Some(id) = record["id"].as_str() {
            id.clone_into(&mut stream.last_id);
        }
        match record["type"].as_str().unwrap() {
            "event" => {
                let data = record["data"].as_str().unwrap().to_owned();
                stream.seen.push((stream.last_id.clone(), data));
            }
            "open" | "ok" | "checkpoint" => {}
            other => panic!("{other}: {record}"),
        }
    }
}

#[test]
fn streams_that_are_cut_and_resume_receive_what_an_sse_reader_does() {
    let seed = seed("streams_that_are_cut_and_resume_receive_what_an_sse_reader_does");
    for (transport, gateway) in Gateway::plain_and_tls(&[("ring-events", "100000")]) {
        compare(&gateway, seed, transport);
    }
}

fn compare(gateway: &Gateway, seed: u64, transport: &str) {
    let mut readers = TOPICS.map(|topic| gateway.events(&format!("?topic={topic}")));
    let mut streams = [(); 2].map(|()| Stream::default());
    for (stream, reader) in streams.iter_mut().zip(&readers) {
        reader.last_event_id().clone_into(&mut stream.last_id);
    }
    let cuts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            for n in 0.. {
                // Some take several frames.
                let length = if random.random_ratio(1, 10) { 60_000 } else { 300 };
                let text = "é".repeat(random.random_range(0..length / 2));
                gateway.publish(TOPICS[random.random_range(0..2)], format!("event {n} {text}"));
                if CUTS <= cuts.load(Ordering::Relaxed) {
                    for topic in TOPICS {
                        gateway.publish(topic, LAST);
                    }
                    return n;
                }
            }
            0
        });
        let _end = EndWriter(&cuts);
        let mut random = StdRng::seed_from_u64(seed);
        while !streams.iter().all(Stream::has_ended) {
            let cut = cuts.fetch_add(1, Ordering::Relaxed);
            // Behind the head of the answer.
            let left = if cut < CUTS { random.random_range(1_000..100_000) } else { usize::MAX };
            read(connect(gateway, left, &streams), &mut streams);
        }
        eprintln!("{transport}: {} cuts, {} events", CUTS, writer.join().unwrap());
    });
    for ((topic, reader), stream) in TOPICS.iter().zip(&mut readers).zip(&streams) {
        let mut expected: Vec<Seen> = Vec::new();
        while expected.last().is_none_or(|(_, data)| data != LAST) {
            let event = reader.next();
            expected.push((event.id, event.data));
        }
        let same = expected.iter().zip(&stream.seen).take_while(|(a, b)| a == b).count();
        let lengths = (expected.len(), stream.seen.len());
        assert_eq!(lengths, (same, same), "{transport}, {topic}, SEED={seed}");
    }
}
