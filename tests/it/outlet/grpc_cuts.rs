//! Streams of gRPC that are cut at random bytes and resume: they receive what
//! an SSE reader does.

use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    gateway::Gateway,
    grpc::{GrpcParser, SERVICE, framed, proto::SubscribeRequest},
    http1,
    http2_body::over_http2,
    parser::Dispatched,
    reader::Signal,
    seed,
};

const CUTS: usize = 50;
const LAST: &str = "the last";

/// Ends the writer, also when the test fails.
struct EndWriter<'a>(&'a AtomicUsize);

impl Drop for EndWriter<'_> {
    fn drop(&mut self) {
        self.0.store(CUTS, Ordering::Relaxed);
    }
}

/// What the stream has received over all calls.
#[derive(Default)]
struct Stream {
    last_id: String,
    seen: Vec<(String, String)>,
}

impl Stream {
    fn has_ended(&self) -> bool {
        self.seen.last().is_some_and(|(_, data)| data == LAST)
    }

    /// Calls Subscribe after the last id, and reads `left` bytes at most.
    fn read(&mut self, gateway: &Gateway, is_web: bool, mut left: usize) {
        let asked = SubscribeRequest {
            topics: vec!["orders".to_owned(), "chats".to_owned()],
            last_event_id: self.last_id.clone(),
            ..Default::default()
        };
        let content_type = if is_web { "application/grpc-web" } else { "application/grpc" };
        let (_, _, mut body) = over_http2(
            http1::connect(gateway.address),
            gateway.address,
            ("POST", &format!("{SERVICE}Subscribe")),
            &[("content-type", content_type)],
            framed(&asked.encode_to_vec()),
        );
        let mut parser = GrpcParser::default();
        let mut part = vec![0; 65_536];
        while 0 < left && !self.has_ended() {
            let room = left.min(part.len());
            let read = std::io::Read::read(&mut body, &mut part[..room]).unwrap();
            assert!(0 < read, "the stream has ended");
            left -= read;
            for signal in parser.feed(&part[..read]) {
                self.take(signal);
            }
        }
    }

    fn take(&mut self, signal: Signal) {
        match signal {
            Signal::Event(Dispatched { id, event, data }) => {
                self.last_id.clone_from(&id);
                match event.as_str() {
                    "stream-open" => {}
                    "message" => self.seen.push((id, data)),
                    other => panic!("{other}: {data}"),
                }
            }
            Signal::Checkpoint(id) => self.last_id = id,
            Signal::KeepAlive => {}
        }
    }
}

#[test]
fn streams_that_are_cut_and_resume_receive_what_an_sse_reader_does() {
    let seed = seed("streams_that_are_cut_and_resume_receive_what_an_sse_reader_does");
    let gateway = Gateway::dev(&[("ring-events", "100000")]);
    let mut reader = gateway.events("?topic=orders,chats");
    let mut stream = Stream::default();
    reader.last_event_id().clone_into(&mut stream.last_id);
    let cuts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            for n in 0.. {
                // Some are larger than a batch.
                let length = if random.random_ratio(1, 10) { 60_000 } else { 300 };
                let text = "é".repeat(random.random_range(0..length / 2));
                let topic = ["orders", "chats"][random.random_range(0..2)];
                gateway.publish(topic, format!("event {n} {text}"));
                if CUTS <= cuts.load(Ordering::Relaxed) {
                    gateway.publish("chats", LAST);
                    return n;
                }
            }
            0
        });
        let _end = EndWriter(&cuts);
        let mut random = StdRng::seed_from_u64(seed);
        while !stream.has_ended() {
            let cut = cuts.fetch_add(1, Ordering::Relaxed);
            let left = if cut < CUTS { random.random_range(1_000..100_000) } else { usize::MAX };
            stream.read(&gateway, random.random_bool(0.5), left);
        }
        eprintln!("{CUTS} cuts, {} events", writer.join().unwrap());
    });
    let mut expected = Vec::new();
    while expected.last().is_none_or(|(_, data)| data != LAST) {
        let event = reader.next();
        expected.push((event.id, event.data));
    }
    let same = expected.iter().zip(&stream.seen).take_while(|(a, b)| a == b).count();
    assert_eq!((expected.len(), stream.seen.len()), (same, same), "SEED={seed}");
}
