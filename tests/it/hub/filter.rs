//! Groups with a filter: each event is checked once for all subscribers of a group, and only events
//! that the filter shows wake them.

use std::{
    cell::Cell,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use stream_events::{
    hub::{
        Broadcast, GroupKey, Hub, Limits, Published, RingLimits, Shard, Start, Subscriber, TopicSet,
    },
    model::{event_id::EventId, filter::Filter, gap::Gap},
};
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::{
    hub::helpers::{T0, found, hub, in_sse, limits, message, poll_read, read, read_all, topics},
    support::seed,
};

/// Key of a group that is shown the events with the attribute `shown`.
fn only_shown(topics: TopicSet) -> GroupKey {
    let filter = Some(Filter::parse("attributes.shown = \"yes\"").unwrap());
    GroupKey { filter, ..in_sse(topics) }
}

fn publish(hub: &Hub, name: &str, data: &str, is_shown: bool, now_ms: u64) -> EventId {
    let mut message = message(name, data);
    let value = if is_shown { "yes" } else { "no" };
    message.attributes.insert("shown".to_owned(), value.to_owned());
    let Published::Stored(id) = hub.publish(message, now_ms) else { panic!("not stored") };
    id
}

/// Waker that records that it was called.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Subscriber that reads when it is woken, and what it has read.
struct Reader {
    subscriber: Subscriber,
    woken: Arc<Woken>,
    waker: Waker,
    from: EventId,
    got: Vec<EventId>,
    gaps: Vec<Gap>,
}

impl Reader {
    fn new(hub: &Hub, shard: &Rc<Shard>, key: GroupKey, start: Start) -> Self {
        let subscriber = hub.subscribe(shard, key, start).unwrap();
        let woken = Arc::<Woken>::default();
        let from = subscriber.cursor();
        let waker = Waker::from(Arc::clone(&woken));
        Self { subscriber, woken, waker, from, got: Vec::new(), gaps: Vec::new() }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.swap(false, Ordering::SeqCst)
    }

    /// Reads everything, and waits.
    fn read(&mut self) {
        loop {
            match poll_read(&mut self.subscriber, &self.waker) {
                std::task::Poll::Ready(read) => {
                    let (gap, events) = found(read);
                    self.gaps.extend(gap);
                    self.got.extend(events.into_iter().map(|(id, _)| id));
                }
                std::task::Poll::Pending if self.is_woken() => {}
                std::task::Poll::Pending => return,
            }
        }
    }
}

impl Reader {
    /// Checks what was read against what was published: ids, topics, and whether each is shown.
    fn check(&self, published: &[(EventId, &str, bool)], only_orders: bool, at: &str) {
        assert!(self.got.is_sorted_by(|a, b| a < b), "{at}: ids decrease or repeat");
        for (id, name, is_shown) in published {
            let is_followed = !only_orders || *name == "orders";
            let is_wanted = self.from < *id && is_followed && *is_shown;
            let covers = |gap: &Gap| gap.after.unwrap() < *id && *id <= gap.upto;
            let has = self.got.contains(id);
            assert!(is_wanted || !has, "{at}: {id} is not shown to this reader");
            let is_told = self.gaps.iter().any(covers);
            assert!(!is_wanted || has || is_told, "{at}: {id} was lost in silence");
        }
    }
}

/// Lets the task of the shard pass on all notifications.
async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

#[tokio::test]
async fn an_event_is_checked_once_for_all_subscribers_and_wakes_them_only_if_it_is_shown() {
    const STREAMS: usize = 1_000;
    let (hub, shard) = hub(limits());
    let open = || Reader::new(&hub, &shard, only_shown(topics(&["orders"])), Start::Live);
    let mut readers: Vec<_> = (0..STREAMS).map(|_| open()).collect();
    readers.iter_mut().for_each(Reader::read);
    LocalSet::new()
        .run_until(async {
            spawn_local(Rc::clone(&shard).run(Duration::ZERO));
            settle().await;
            let mut expected = Vec::new();
            let mut published = 0;
            for round in 0..5 {
                for n in 0..40 {
                    published += 1;
                    publish(&hub, "orders", "hidden", false, T0 + n);
                    if n % 3 == 0 {
                        settle().await;
                    }
                }
                settle().await;
                assert_eq!(readers.iter().filter(|reader| reader.is_woken()).count(), 0);
                // Some find nothing at their keep-alive; their cursors move nevertheless.
                for reader in readers.iter_mut().step_by(1 + round) {
                    reader.read();
                    assert_eq!(reader.subscriber.cursor(), hub.head());
                }
                assert_eq!(hub.evaluations(), published);
                published += 1;
                expected.push(publish(&hub, "orders", "shown", true, T0 + 50));
                settle().await;
                for reader in &mut readers {
                    assert!(reader.is_woken());
                    reader.read();
                    assert_eq!(reader.got, expected);
                }
                assert_eq!(hub.evaluations(), published, "round {round}");
            }
        })
        .await;
    assert!(readers.iter().all(|reader| reader.gaps.is_empty()));
}

/// Counts its passes, and writes to no stream.
#[derive(Default)]
struct Passes(Cell<usize>);

impl Broadcast for Passes {
    fn write_pass(&self, _: usize) -> Option<usize> {
        self.0.set(self.0.get() + 1);
        None
    }
}

/// The check of a long stretch of hidden events is made in turns, and goes on without a notification
/// of another event. A broadcast that has more to read is served even if nothing is new.
#[tokio::test]
async fn a_group_is_checked_to_the_end_and_served_when_it_asks_to_be() {
    let ring = RingLimits { events: 10_000, bytes: 1 << 30 };
    let (hub, shard) = hub(Limits { ring, ..limits() });
    let mut reader = Reader::new(&hub, &shard, only_shown(topics(&["orders"])), Start::Live);
    reader.read();
    for n in 0..5_000 {
        publish(&hub, "orders", "x", false, T0 + n);
    }
    let shown = publish(&hub, "orders", "x", true, T0 + 5_000);
    let passes = Rc::<Passes>::default();
    let broadcast: Weak<Passes> = Rc::downgrade(&passes);
    reader.subscriber.reader().group().set_broadcast(broadcast);
    LocalSet::new()
        .run_until(async {
            spawn_local(Rc::clone(&shard).run(Duration::ZERO));
            settle().await;
            assert!(reader.is_woken());
            reader.read();
            assert_eq!((reader.got.as_slice(), hub.evaluations()), (&[shown][..], 5_001));
            let before = passes.0.get();
            publish(&hub, "orders", "x", false, T0 + 5_001);
            settle().await;
            assert_eq!(passes.0.get(), before, "the filter hides the event");
            reader.subscriber.reader().reschedule();
            settle().await;
            assert_eq!(passes.0.get(), before + 1);
        })
        .await;
}

/// A worker with many filters lets its other tasks run between the checks of one event.
#[tokio::test]
async fn other_tasks_run_between_the_checks_of_many_filters() {
    const FILTERS: u64 = 80;
    let (hub, shard) = hub(limits());
    let readers: Vec<_> = (0..FILTERS)
        .map(|n| {
            let filter = Some(Filter::parse(&format!("attributes:a{n}")).unwrap());
            let key = GroupKey { filter, ..in_sse(topics(&["orders"])) };
            let mut reader = Reader::new(&hub, &shard, key, Start::Live);
            reader.read();
            reader
        })
        .collect();
    LocalSet::new()
        .run_until(async {
            spawn_local(Rc::clone(&shard).run(Duration::ZERO));
            settle().await;
            publish(&hub, "orders", "hidden", false, T0);
            let counting = hub.clone();
            let other = spawn_local(async move {
                let (mut before, mut most) = (0, 0);
                while before < FILTERS {
                    yield_now().await;
                    let now = counting.evaluations();
                    (before, most) = (now, most.max(now - before));
                }
                most
            });
            let most = other.await.unwrap();
            // The scheduler may run the shard twice before the other task.
            assert!((1..=16).contains(&most), "{most} checks without a pause");
        })
        .await;
    assert_eq!(readers.iter().filter(|reader| reader.is_woken()).count(), 0);
}

/// A rare event is found by a read that is interrupted, and a cursor before hidden events resumes
/// without a gap while the ring holds its id.
#[test]
fn a_rare_event_is_found_in_turns() {
    const EVENTS: u64 = 100_000;
    let ring = RingLimits { events: 200_000, bytes: 1 << 30 };
    let (hub, shard) = hub(Limits { ring, ring_bytes_total: 1 << 30, ..limits() });
    let begin = publish(&hub, "orders", "before", true, T0);
    for n in 1..=EVENTS {
        publish(&hub, "orders", "x", n == EVENTS, T0 + n / 100);
    }
    let key = only_shown(topics(&["orders"]));
    let mut reader = hub.subscribe(&shard, key, Start::After(begin)).unwrap();
    let mut turns = 0;
    let (gap, events) = loop {
        let before = hub.evaluations();
        if let Some(found) = read(&mut reader) {
            break found;
        }
        assert!(reader.has_more());
        let checked = hub.evaluations() - before;
        assert!((1_000..2_000).contains(&checked), "{checked} events in a turn");
        turns += 1;
    };
    assert_eq!((gap, events.len(), hub.evaluations()), (None, 1, EVENTS));
    assert!((50..=100).contains(&turns), "{turns} turns");
}

/// A reader cannot know whether a lost event would have been shown.
#[test]
fn a_gap_is_told_though_the_filter_would_have_hidden_the_events() {
    let ring = RingLimits { events: 5, bytes: 1 << 20 };
    let (hub, shard) = hub(Limits { ring, ..limits() });
    let begin = publish(&hub, "orders", "x", false, T0);
    for n in 1..20 {
        publish(&hub, "orders", "x", false, T0 + n);
    }
    let key = only_shown(topics(&["orders"]));
    let mut reader = hub.subscribe(&shard, key, Start::After(begin)).unwrap();
    let (gaps, events) = read_all(&mut reader);
    assert_eq!((gaps.len(), events.len()), (1, 0));
    assert_eq!((gaps[0].after, gaps[0].upto.time_ms), (Some(begin), T0 + 14));
    assert_eq!(reader.cursor(), hub.head());
}

/// Readers with and without a filter, some of which only read when they are woken, against a list
/// of all that was published.
#[tokio::test]
async fn every_shown_event_is_read_or_told_as_missing() {
    let seed = seed("every_shown_event_is_read_or_told_as_missing");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..30 {
        let ring = RingLimits { events: random.random_range(2..60), bytes: 100_000 };
        let (hub, shard) = hub(Limits { ring, ring_bytes_total: 300_000, ..limits() });
        let names = ["orders", "parcels"];
        let followed = [topics(&["orders"]), topics(&names), TopicSet::all()];
        let (mut published, mut readers) = (Vec::new(), Vec::new());
        LocalSet::new()
            .run_until(async {
                spawn_local(Rc::clone(&shard).run(Duration::ZERO));
                for now_ms in T0..T0 + 600 {
                    match random.random_range(0..100) {
                        0..70 => {
                            let name = names[random.random_range(0..2_usize)];
                            let is_shown = random.random_range(0..8) == 0;
                            let length =
                                [10, 10, 10, 3_000, 17_000][random.random_range(0..5_usize)];
                            let data = "x".repeat(length);
                            let id = publish(&hub, name, &data, is_shown, now_ms);
                            published.push((id, name, is_shown));
                        }
                        70..75 => {
                            let set = random.random_range(0..3_usize);
                            let known = random.random_range(0..=published.len());
                            let start = published.get(known).map(|(id, ..)| Start::After(*id));
                            let key = only_shown(followed[set].clone());
                            let start = start.unwrap_or(Start::Live);
                            let mut reader = Reader::new(&hub, &shard, key, start);
                            reader.read();
                            readers.push((set, reader));
                        }
                        // As at a keep-alive.
                        75..78 if !readers.is_empty() => {
                            let at = random.random_range(0..readers.len());
                            readers[at].1.read();
                        }
                        78..80 if !readers.is_empty() => {
                            let at = random.random_range(0..readers.len());
                            readers.swap_remove(at);
                        }
                        _ => {
                            for _ in 0..random.random_range(1..5) {
                                yield_now().await;
                            }
                            for (_, reader) in &mut readers {
                                if random.random_range(0..3) == 0 && reader.is_woken() {
                                    reader.read();
                                }
                            }
                        }
                    }
                }
                for _ in 0..3 {
                    settle().await;
                    for (_, reader) in readers.iter_mut().filter(|(_, reader)| reader.is_woken()) {
                        reader.read();
                    }
                }
            })
            .await;
        for (set, reader) in &readers {
            reader.check(&published, *set == 0, &format!("SEED={seed} round {round}"));
        }
    }
}
