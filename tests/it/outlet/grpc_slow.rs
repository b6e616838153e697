//! Calls of gRPC whose clients stop reading: the gateway holds a bounded amount for each.

use serde_json::json;

use crate::support::{
    gateway::{message, metric},
    grpc::{Call, SERVICE, proto::SubscribeRequest},
    http1,
    process::{Process, stream_events},
};

/// Calls that are not read.
const CALLS: u32 = 30;
/// Bytes that the gateway may hold for a call.
const HELD_MAX: u32 = 512 * 1024;
/// Events of a round, and the size of each: more than 40 MB in all.
const EVENTS: usize = 700;
const EVENT_BYTES: usize = 60_000;

#[test]
fn a_client_that_stops_reading_holds_a_bounded_amount() {
    let listen = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let open = ["--push-auth", "none", "--read-auth", "anonymous", "--workers", "1"];
    let held = ["--ring-events", "20", "--write-timeout", "60 s"];
    let process = Process::start(&mut stream_events(&[&listen[..], &open, &held].concat()));
    let (address, ops) = (process.listen(), process.ops_listen());
    let text = "x".repeat(EVENT_BYTES);
    let mut pushed = 0;
    let mut push = || {
        pushed += 1;
        let body = json!({"message": message(&text, &pushed.to_string())}).to_string();
        let json = [("content-type", "application/json")];
        let answer = http1::request(address, "POST", "/push/orders", &json, body.as_bytes());
        assert_eq!(answer.status, 204);
    };
    (0..EVENTS).for_each(|_| push());
    let resident = || metric(ops, "process_resident_memory_bytes");
    let before = resident();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let asked = SubscribeRequest { topics: vec!["orders".into()], ..Default::default() };
            let mut call = Call::begin_at(address, &format!("{SERVICE}Subscribe"), &[]);
            call.send(&asked);
            call.finish();
            call.answered()
        })
        .collect();
    let mut most = 0.0_f64;
    for _ in 0..EVENTS / 10 {
        (0..10).for_each(|_| push());
        most = most.max(resident());
    }
    let missing = f64::from(CALLS) - metric(ops, "stream_events_streams");
    assert!(missing < 1.0, "{missing} calls have ended");
    let allowed = before + f64::from(CALLS * HELD_MAX);
    eprintln!("{before} bytes before, {most} with {CALLS} calls, {allowed} allowed");
    assert!(most < allowed, "{before} bytes before, {most} with {CALLS} calls");
    drop(calls);
}
