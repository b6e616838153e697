//! Events that a stream writes to its socket itself, past its task and actix's buffers.

use std::io::Read as _;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    gateway::Gateway,
    http1::{self, EventSource},
    reader::{BY_GATEWAY, CASES, Case, FEW_CASES},
    seed,
};

/// A socket whose receiver takes a few kilobytes at a time takes writes in part, at any byte, also
/// in the middle of a chunk's framing. What is left has to go before all that comes later, whoever
/// writes that.
#[test]
fn what_a_socket_takes_in_part_stays_in_order() {
    let seed = seed("what_a_socket_takes_in_part_stays_in_order");
    for (case, events) in FEW_CASES.into_iter().zip([2_000, 2_000, 500, 500]) {
        write_in_parts(case, events, seed);
    }
}

fn write_in_parts(case: Case, events: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let gateway = case.gateway(&[("ring-events", "100000"), ("ring-bytes", "256 MiB")]);
    let mut slow = case.open_narrow(&gateway, "");
    let mut quick = case.open(&gateway, "");
    let sizes: Vec<usize> = (0..events)
        .map(|_| match random.random_range(0..20) {
            // Larger than what is written at a time, about as large, and small.
            0 => random.random_range(16_000..40_000),
            1..4 => random.random_range(2_000..16_000),
            _ => random.random_range(10..400),
        })
        .collect();
    let data = |at: usize| format!("{at} {}", "x".repeat(sizes[at]));
    assert_eq!(slow.next_raw().unwrap().event, "stream-open");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..sizes.len()).for_each(|at| gateway.publish("orders", data(at))));
        // Each waits for what it reads next, so that both are sometimes ahead and sometimes behind.
        for source in [&mut slow, &mut quick] {
            scope.spawn(|| {
                for at in 0..sizes.len() {
                    assert!(source.next().data == data(at), "SEED={seed}: event {at}");
                }
            });
        }
    });
}

/// The last part of the last event goes out as soon as the reader takes it, though nothing comes
/// after it. Which event is taken in part depends on the kernel, so any number of them is tried.
#[test]
fn the_rest_of_the_last_event_needs_no_next_one() {
    for case in CASES {
        let gateway = case.gateway(&[("keep-alive", "10 min"), ("write-timeout", "10 min")]);
        let data = "x".repeat(14_000);
        for count in 1..20 {
            let mut slow = case.open_narrow(&gateway, "");
            gateway.until_metric("stream_events_streams", 1.0);
            (0..count).for_each(|_| gateway.publish("orders", &data));
            assert_eq!(slow.next_raw().unwrap().event, "stream-open");
            (0..count).for_each(|_| assert!(slow.next().data == data));
            drop(slow);
            gateway.until_metric("stream_events_streams", 0.0);
        }
    }
}

/// A reader of many topics walks past those of others a bounded step at a time, also here.
#[test]
fn a_long_walk_past_other_topics_is_taken_to_its_end() {
    let gateway = Gateway::dev(&[("keep-alive", "10 min")]);
    let names: Vec<_> = (0..20).map(|n| format!("quiet-{n}")).collect();
    let query = format!("?topic={}", names.join(","));
    let mut sources: Vec<_> =
        BY_GATEWAY[0].iter().map(|case| case.open(&gateway, &query)).collect();
    gateway.publish("quiet-0", "first");
    for source in &mut sources {
        assert_eq!(source.next().data, "first");
    }
    for at in 0..5_000 {
        gateway.publish(&format!("busy-{}", at % 5), "x");
    }
    gateway.publish("quiet-1", "second");
    for source in &mut sources {
        assert_eq!(source.next().data, "second");
    }
}

/// Requests that wait for their turn behind a stream leave it as it is, and end with it.
#[test]
fn pipelined_requests_do_not_disturb_a_stream() {
    let gateway = Gateway::dev(&[]);
    let mut socket = http1::connect(gateway.address);
    http1::write_head(&mut socket, "GET", "/events", &[]);
    let mut source = EventSource::from_socket(socket.try_clone().unwrap());
    assert_eq!(source.next_raw().unwrap().event, "stream-open");
    for at in 0..40 {
        http1::write_head(&mut socket, "GET", "/healthz", &[]);
        gateway.publish("orders", at.to_string());
        assert_eq!(source.next().data, at.to_string());
    }
    drop(source);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    // Over requests that were not read it is reset.
    let reset = |err: &std::io::Error| err.kind() == std::io::ErrorKind::ConnectionReset;
    let read = socket.read(&mut [0]);
    assert!(matches!(read, Ok(0)) || read.as_ref().is_err_and(reset), "{read:?}");
    gateway.until_metric("stream_events_streams", 0.0);
}
