//! How many instructions the pure parts take, which does not depend on the machine's mood.

#![allow(unused_qualifications, reason = "the macros of gungraun write them")]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use stream_events::{hub::Subscriber, model::message::Message};
use stream_events_bench::pure::{self, Place};

#[library_benchmark]
#[bench::of_200(pure::message_and_copy(200))]
#[bench::of_1024(pure::message_and_copy(1_024))]
fn encode((message, copy): (Message, Box<Message>)) -> (Bytes, Box<Message>) {
    // The copy shares data and topic. It is returned: otherwise freeing their memory would count.
    (black_box(pure::encode(message)), copy)
}

#[library_benchmark]
#[bench::of_200(pure::body(200))]
#[bench::of_1024(pure::body(1_024))]
fn decode(body: Vec<u8>) -> (Message, Vec<u8>) {
    (black_box(pure::decode(&body)), body)
}

#[library_benchmark]
#[bench::into_a_full_ring((pure::message_and_copy(200), Place::with(2_000)))]
fn publish(
    ((message, copy), mut place): ((Message, Box<Message>), Place),
) -> (Box<Message>, Place) {
    place.publish(message);
    (copy, place)
}

fn reader() -> (Place, Subscriber) {
    let place = Place::with(100);
    let reader = place.reader();
    (place, reader)
}

#[library_benchmark]
#[bench::of_100_events(reader())]
fn read((place, mut reader): (Place, Subscriber)) -> (Place, Subscriber) {
    black_box(pure::read_all(&mut reader));
    (place, reader)
}

library_benchmark_group!(name = parts, benchmarks = [encode, decode, publish, read]);
main!(library_benchmark_groups = parts);
