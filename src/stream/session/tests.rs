//! Tests of a session's steps, without a socket and without a timer.

mod fixture;
mod folds;
mod presence;
mod reads;

use std::time::Duration;

use fixture::{Gateway, HOUR, KEEP_ALIVE, NOW_MS, RING_AGE_MS, Stream, Woken, hub, limits, topic};

use super::Session;
use crate::{
    auth::grant::{Grant, Holder},
    clock,
    hub::{BATCH_MAX_BYTES, Hub, Limits, Start, SubscribeError},
    model::{
        control::{
            Control, EndReason, RETRY_AFTER_CUT_MS, RETRY_AFTER_END_MS, RETRY_AFTER_REFUSAL_MS,
        },
        event_id::EventId,
        gap::{Gap, GapReason},
        message::Message,
        topic::TopicPattern,
    },
    stream::{lease::Terms, pending::PendingStream},
};

const SECOND: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(100);

fn gap(reason: GapReason, after: Option<EventId>, upto: EventId) -> Gap {
    Gap { reason, topics: vec![topic("orders")], after, upto }
}

#[test]
fn a_live_stream_opens_at_the_head_and_sends_later_events() {
    let gateway = Gateway::new(hub(9));
    let head = gateway.publish("orders", "a");
    let mut stream = gateway.open(Start::Live);
    let open = stream.say_open();
    assert_eq!(
        (open.id, open.resumed, open.topics),
        (head, false, vec![TopicPattern::Exact(topic("orders"))])
    );
    assert!(RETRY_AFTER_CUT_MS.contains(&open.retry_ms));
    assert_eq!(stream.wait(), KEEP_ALIVE);
    let (b, c) = (gateway.publish("orders", "b"), gateway.publish("orders", "c"));
    assert_eq!(stream.give(), format!("{b} b\n{c} c\n"));
    stream.wait();
    let metrics = &gateway.context.metrics;
    assert_eq!((metrics.streams_opened.get(), metrics.delivered.get()), (1, 2));
    assert_eq!(metrics.latency.get_sample_count(), 1, "once for a batch");
}

#[test]
fn a_resumed_stream_sends_the_events_after_its_id() {
    let gateway = Gateway::new(hub(9));
    let [a, b, c] = ["a", "b", "c"].map(|data| gateway.publish("orders", data));
    let mut stream = gateway.open(Start::After(a));
    let open = stream.say_open();
    assert_eq!((open.id, open.resumed), (a, true));
    assert_eq!(stream.give(), format!("{b} b\n{c} c\n"));
    stream.wait();
    assert_eq!(gateway.context.metrics.delivered.get(), 2);
    assert_eq!(gateway.context.metrics.latency.get_sample_count(), 0, "only of live events");
    let mut stream = gateway.open(Start::Since(NOW_MS));
    let open = stream.say_open();
    assert!(!open.resumed && open.id < a);
    assert_eq!(stream.give(), format!("{a} a\n{b} b\n{c} c\n"));
}

#[test]
fn an_unknown_id_gets_a_gap_and_a_checkpoint_at_the_head() {
    let gateway = Gateway::new(hub(9));
    let head = gateway.publish("orders", "a");
    let ahead = EventId { time_ms: head.time_ms + 1, ..head };
    for (start, id, after) in
        [(Start::Unknown, head, None), (Start::After(ahead), ahead, Some(ahead))]
    {
        let mut stream = gateway.open(start);
        let open = stream.say_open();
        assert_eq!((open.id, open.resumed), (id, false));
        assert_eq!(stream.say_gap(), gap(GapReason::UnknownId, after, head));
        assert_eq!(stream.say(), Control::Checkpoint(head));
        assert_eq!(stream.wait(), KEEP_ALIVE);
    }
    assert_eq!(gateway.gaps("unknown-id"), 2);
}

#[test]
fn an_id_of_another_history_gets_a_gap_and_all_events() {
    let gateway = Gateway::new(hub(9));
    let (origin, id) = (gateway.hub().head(), EventId::start_of(6, 500));
    let a = gateway.publish("orders", "a");
    let mut stream = gateway.open(Start::After(id));
    let open = stream.say_open();
    assert_eq!((open.id, open.resumed), (id, true));
    assert_eq!(stream.say_gap(), gap(GapReason::Restart, Some(id), origin));
    assert_eq!(stream.give(), format!("{a} a\n"));
    stream.wait();
}

#[test]
fn a_gap_comes_before_the_events_that_were_read_with_it() {
    let gateway = Gateway::new(hub(2));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|data| gateway.publish("orders", data));
    let mut stream = gateway.open(Start::After(a));
    stream.say_open();
    assert_eq!(stream.say_gap(), gap(GapReason::Evicted, Some(a), b));
    assert_eq!(stream.give(), format!("{c} c\n{d} d\n"));
    assert_eq!(stream.wait(), KEEP_ALIVE, "the events are the checkpoint");
}

#[test]
fn a_reader_that_is_cut_before_the_checkpoint_gets_the_gap_again() {
    let gateway = Gateway::new(hub(9));
    let (a, b) = (gateway.publish("orders", "a"), gateway.publish("orders", "b"));
    gateway.hub().sweep(NOW_MS + RING_AGE_MS + 1);
    let mut opened_at = a;
    for is_cut in [true, true, false] {
        let mut stream = gateway.open(Start::After(opened_at));
        opened_at = stream.say_open().id;
        assert_eq!(stream.say_gap(), gap(GapReason::Evicted, Some(a), b));
        if !is_cut {
            assert_eq!(stream.say(), Control::Checkpoint(b));
            stream.wait();
        }
    }
    assert_eq!(gateway.gaps("evicted"), 3);
    let mut stream = gateway.open(Start::After(b));
    stream.say_open();
    assert_eq!(stream.wait(), KEEP_ALIVE, "no gap after the checkpoint");
}

#[test]
fn a_silent_stream_sends_a_checkpoint_if_its_cursor_moved_and_else_a_keep_alive() {
    let gateway = Gateway::new(hub(9));
    let mut stream = gateway.open(Start::Live);
    stream.say_open();
    let head = gateway.publish("another", "a");
    assert_eq!(stream.wait(), KEEP_ALIVE);
    stream.advance(KEEP_ALIVE);
    assert_eq!(stream.say(), Control::Checkpoint(head));
    assert_eq!(stream.wait(), KEEP_ALIVE);
    stream.advance(KEEP_ALIVE.mul_f64(0.8));
    assert_eq!(stream.wait(), KEEP_ALIVE.mul_f64(0.2));
    stream.advance(KEEP_ALIVE.mul_f64(0.2));
    assert_eq!(stream.say(), Control::KeepAlive);
    stream.advance(SECOND);
    assert_eq!(stream.wait() + SECOND, KEEP_ALIVE);
    let b = gateway.publish("orders", "b");
    assert_eq!(stream.give(), format!("{b} b\n"));
    assert_eq!(stream.wait(), KEEP_ALIVE, "after each write");
}

#[test]
fn a_stream_that_waits_for_the_log_opens_at_the_position_in_the_answer() {
    let gateway = Gateway::new(hub(9));
    let [a, b] = ["a", "b"].map(|data| gateway.publish("orders", data));
    let (mut stream, answer) = gateway.wait_for_log(gateway.pending(Start::Unknown));
    let reserved_bytes = gateway.hub().followed_bytes();
    assert_eq!(stream.wait(), KEEP_ALIVE);
    stream.advance(KEEP_ALIVE);
    assert_eq!(stream.say(), Control::Waiting);
    assert_eq!(stream.wait(), KEEP_ALIVE);
    assert_eq!(gateway.context.metrics.streams_opened.get(), 0);
    let woken = Woken::register(&stream);
    answer.set(Ok(Start::After(a)));
    assert!(woken.was_woken());
    let open = stream.say_open();
    assert_eq!((open.id, open.resumed), (a, true));
    assert_eq!(stream.give(), format!("{b} b\n"));
    assert!(0 < reserved_bytes);
    assert_eq!(gateway.hub().followed_bytes(), reserved_bytes, "paid for once");
}

#[test]
fn a_stream_that_waited_for_the_log_is_refused_with_the_id_of_its_reader() {
    let gateway = Gateway::new(Hub::new(Limits { subscribers: 1, ..limits(9) }, 7, NOW_MS));
    let a = gateway.publish("orders", "a");
    let pending = || gateway.pending(Start::After(a));
    let (mut drained, drained_answer) = gateway.wait_for_log(pending());
    let (mut busy, busy_answer) = gateway.wait_for_log(pending());
    let (waiting, _answer) = gateway.wait_for_log(pending());
    let open = gateway.open(Start::Live);
    assert_eq!(Session::open(pending(), open.now).unwrap_err(), SubscribeError::Subscribers);
    drained_answer.set(Err(EndReason::Draining));
    busy_answer.set(Ok(Start::After(a)));
    for (stream, reason) in [(&mut drained, EndReason::Draining), (&mut busy, EndReason::Busy)] {
        let end = stream.say_end();
        assert_eq!((end.reason, end.id), (reason, Some(a)));
        assert!(RETRY_AFTER_REFUSAL_MS.contains(&end.retry_ms));
        let refused = &gateway.context.metrics.streams_refused;
        assert_eq!(refused.with_label_values(&[reason.as_str()]).get(), 1);
    }
    drop((drained, busy, waiting));
    assert_eq!((gateway.ended("client"), gateway.hub().subscribers()), (0, 1));
}

#[test]
fn a_stream_that_waits_for_the_log_beyond_its_maximum_age_does_not_spin() {
    let gateway = Gateway::new(hub(9));
    let mut pending = gateway.pending(Start::Live);
    pending.end_at = gateway.begun + SECOND;
    let (mut stream, answer) = gateway.wait_for_log(pending);
    stream.advance(SECOND);
    assert_eq!(stream.wait() + SECOND, KEEP_ALIVE, "the answer comes from the task that asks");
    answer.set(Err(EndReason::MaxAge));
    assert_eq!(stream.say_end().reason, EndReason::MaxAge);
}

/// Returns a stream whose token expires in 200 s.
fn leased(gateway: &Gateway) -> PendingStream {
    let grant = Grant {
        subject: Some("reader".into()),
        holder: Holder::Subject("reader".into()),
        topics: [TopicPattern::All].into(),
        publish: std::sync::Arc::default(),
        filter: None,
        expires_ms: clock::now_ms() + 200_000,
    };
    PendingStream { terms: Some(Terms::of(&grant)), ..gateway.pending(Start::Live) }
}

/// Compares times of which one depends on the wall clock.
fn assert_about(actual: Duration, expected_secs: u64) {
    let expected = Duration::from_secs(expected_secs);
    assert!(actual.abs_diff(expected) < 10 * SECOND, "{actual:?} is not about {expected:?}");
}

#[test]
fn a_token_that_expires_is_announced_and_ends_its_stream_even_with_events_left() {
    let gateway = Gateway::with(hub(9), |context| context.keep_alive = HOUR);
    let mut stream = gateway.open_pending(leased(&gateway));
    stream.say_open();
    let warning = stream.wait();
    assert_about(warning, 140);
    stream.advance(warning);
    assert_eq!(stream.say(), Control::Auth(60 * SECOND));
    let read = gateway.publish("another", "a");
    assert_eq!(stream.wait(), 60 * SECOND);
    gateway.publish("orders", "b");
    stream.advance(60 * SECOND);
    assert_eq!(stream.say(), Control::Checkpoint(read));
    assert_eq!(stream.say_end().reason, EndReason::Expired);
    assert_eq!(gateway.ended("expired"), 1);
}

#[test]
fn a_renewal_wakes_its_stream_and_moves_the_warning() {
    let gateway = Gateway::with(hub(9), |context| context.keep_alive = HOUR);
    let mut stream = gateway.open_pending(leased(&gateway));
    let open = stream.say_open();
    let warning = stream.wait();
    let woken = Woken::register(&stream);
    gateway.context.leases.find(&open.stream).unwrap().extend(clock::now_ms() + 900_000);
    assert!(woken.was_woken());
    let Control::Auth(left) = stream.say() else { panic!("the reader is notified of the renewal") };
    assert_about(left, 900);
    assert_eq!(stream.wait() + 60 * SECOND, left);
    stream.advance(warning + 60 * SECOND);
    stream.wait();
    drop(stream);
    assert!(gateway.context.leases.find(&open.stream).is_none());
}

#[test]
fn a_stream_ends_at_its_cursor_at_its_maximum_age() {
    let gateway = Gateway::new(hub(9));
    let mut pending = gateway.pending(Start::Live);
    pending.end_at = gateway.begun + SECOND;
    let mut stream = gateway.open_pending(pending);
    stream.say_open();
    let read = gateway.publish("another", "a");
    assert_eq!(stream.wait(), SECOND, "before the next keep-alive");
    gateway.publish("orders", "b");
    stream.advance(SECOND);
    assert_eq!(stream.say(), Control::Checkpoint(read));
    let end = stream.say_end();
    assert_eq!((end.reason, end.id), (EndReason::MaxAge, None));
    assert!(RETRY_AFTER_END_MS.contains(&end.retry_ms));
    drop(stream);
    assert_eq!((gateway.ended("max-age"), gateway.ended("client")), (1, 0), "counted once");
}

/// Begins the drain. Sets the time of `stream` to the time at which it begins.
fn drain(gateway: &Gateway, stream: &mut Stream) {
    gateway.hub().drain(DRAIN);
    stream.now = gateway.hub().draining().unwrap().from.into();
}

#[test]
fn a_drain_of_events_in_memory_sends_all_of_them_first() {
    let gateway = Gateway::new(hub(9));
    let mut stream = gateway.open(Start::Live);
    stream.say_open();
    let data = "x".repeat(BATCH_MAX_BYTES / 2);
    let ids = [(); 3].map(|()| gateway.publish("orders", &data));
    let last = gateway.publish("another", "a");
    drain(&gateway, &mut stream);
    stream.advance(DRAIN);
    for id in ids {
        assert_eq!(stream.give(), format!("{id} {data}\n"));
    }
    assert_eq!(stream.say(), Control::Checkpoint(last));
    assert_eq!(stream.say_end().reason, EndReason::Draining);
    assert_eq!(gateway.ended("draining"), 1);
}

#[test]
fn a_stream_from_a_copy_of_a_log_ends_at_its_own_time_in_a_drain() {
    let gateway = Gateway::with(Hub::copy(limits(9)), |context| context.keep_alive = HOUR);
    let store = |topic, time_ms| {
        let id = EventId { time_ms, sequence: 0 };
        gateway.hub().store(Message::for_tests(topic, "a"), id);
        id
    };
    let mut stream = gateway.open(Start::Live);
    stream.say_open();
    let read = store("another", 1);
    drain(&gateway, &mut stream);
    let wait = stream.wait();
    assert!(Duration::ZERO < wait && wait < DRAIN.mul_f64(0.9));
    for _ in 0..100 {
        assert_eq!(stream.wait(), wait, "the time is chosen once");
    }
    store("orders", 2);
    stream.advance(wait);
    assert_eq!(stream.say(), Control::Checkpoint(read));
    assert_eq!(stream.say_end().reason, EndReason::Draining);
}

#[test]
fn a_dropped_stream_is_counted_as_closed_by_its_client_or_as_stalled() {
    let gateway = Gateway::new(hub(9));
    let (client, mut stalled) = (gateway.open(Start::Live), gateway.open(Start::Live));
    stalled.session.mark_stalled();
    drop(client);
    assert_eq!((gateway.ended("client"), gateway.ended("stalled")), (1, 0));
    drop(stalled);
    assert_eq!((gateway.ended("client"), gateway.ended("stalled")), (1, 1));
    assert_eq!(gateway.hub().subscribers(), 0);
}
