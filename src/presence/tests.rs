//! Tests of rooms and their readers, without a clock and without Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    reading::Reading,
    report::{Answer, MEMBERS_MAX, OtherReport},
    room::{CHANGES_MAX, Room},
};
use crate::model::presence::{MemberName, PresenceUpdate};

const GRACE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Time just before the end of the grace time.
const WITHIN_GRACE: Duration = Duration::from_secs(9);

fn name(text: impl AsRef<str>) -> MemberName {
    text.as_ref().parse().unwrap()
}

/// Reader that keeps what it was sent, and checks that each message fits what it knows.
#[derive(Default)]
struct Reader {
    reading: Reading,
    members: BTreeSet<MemberName>,
}

impl Reader {
    /// Reads one message. Returns false if there is none.
    fn read(&mut self, room: &Room) -> bool {
        let Some(update) = self.reading.next(room) else { return false };
        match update {
            PresenceUpdate::Members(roster) => {
                self.members.clear();
                for member in roster.members {
                    assert!(self.members.insert(member.name));
                }
            }
            PresenceUpdate::Also(members) => {
                for member in members {
                    assert!(self.members.insert(member.name.clone()), "{member:?} twice");
                }
            }
            PresenceUpdate::Join(name) => assert!(self.members.insert(name.clone()), "{name}"),
            PresenceUpdate::Leave(name) => assert!(self.members.remove(&name), "{name}"),
        }
        true
    }

    fn read_all(&mut self, room: &Room) -> Vec<&str> {
        while self.read(room) {}
        assert!(self.reading.is_current(room.changed()));
        self.members.iter().map(MemberName::as_str).collect()
    }
}

fn updates(reading: &mut Reading, room: &Room) -> Vec<String> {
    let text = |update| match update {
        PresenceUpdate::Members(roster) => format!("{} members", roster.members.len()),
        PresenceUpdate::Also(members) => format!("also {}", members.len()),
        PresenceUpdate::Join(name) => format!("+{name}"),
        PresenceUpdate::Leave(name) => format!("-{name}"),
    };
    std::iter::from_fn(|| reading.next(room)).map(text).collect()
}

#[test]
fn a_member_joins_with_the_first_stream_and_leaves_after_the_last() {
    let (mut room, start) = (Room::default(), Instant::now());
    let mut reading = Reading::default();
    assert_eq!(updates(&mut reading, &room), ["0 members"]);
    let alice = name("alice");
    room.enter(Some(&alice), start);
    room.enter(Some(&alice), start);
    room.enter(None, start);
    assert_eq!(updates(&mut reading, &room), ["+alice"]);
    let roster = room.roster();
    assert_eq!((roster.members[0].streams, roster.anonymous, roster.more), (2, 1, false));
    room.exit(Some(&alice), start);
    room.expire(GRACE, start + 2 * GRACE);
    room.exit(Some(&alice), start);
    room.exit(None, start);
    room.expire(GRACE, start + WITHIN_GRACE);
    assert!(updates(&mut reading, &room).is_empty());
    assert!(room.has_absent() && room.roster().members.is_empty());
    room.expire(GRACE, start + GRACE);
    assert_eq!(updates(&mut reading, &room), ["-alice"]);
    assert!(!room.has_absent() && room.is_locally_empty() && room.member_count() == 0);
}

#[test]
fn a_reconnect_within_the_grace_time_is_no_change() {
    let (mut room, start) = (Room::default(), Instant::now());
    let alice = name("alice");
    room.enter(Some(&alice), start);
    let mut reading = Reading::default();
    assert_eq!(updates(&mut reading, &room), ["1 members"]);
    for n in 0..50 {
        let now = start + n * GRACE;
        room.exit(Some(&alice), now);
        room.expire(GRACE, now + WITHIN_GRACE);
        room.enter(Some(&alice), now + WITHIN_GRACE);
        room.expire(GRACE, now + GRACE);
    }
    assert!(updates(&mut reading, &room).is_empty());
    // A list within the grace time has the member, without a stream.
    room.exit(Some(&alice), start);
    let Some(PresenceUpdate::Members(roster)) = Reading::default().next(&room) else { panic!() };
    assert_eq!(roster.members[0].streams, 0);
}

#[test]
fn names_beyond_the_limit_are_listed_when_there_is_room() {
    let (mut room, start) = (Room::default(), Instant::now());
    for n in 0..MEMBERS_MAX + 5 {
        room.enter(Some(&name(format!("{n:05}"))), start);
    }
    let mut reader = Reader::default();
    assert_eq!(reader.read_all(&room).len(), MEMBERS_MAX);
    assert!(room.has_more() && room.roster().more && room.report().more);
    assert_eq!(room.report().members.len(), MEMBERS_MAX);
    for n in 0..3 {
        room.exit(Some(&name(format!("{n:05}"))), start);
    }
    // One that was never listed ends without a message.
    room.exit(Some(&name(format!("{:05}", MEMBERS_MAX + 4))), start);
    room.expire(GRACE, start + GRACE);
    let members = reader.read_all(&room);
    assert_eq!(members.len(), MEMBERS_MAX);
    assert!(members.contains(&&*format!("{:05}", MEMBERS_MAX + 2)));
    assert!(room.has_more());
    room.exit(Some(&name("00500")), start);
    room.expire(GRACE, start + GRACE);
    assert_eq!(reader.read_all(&room).len(), MEMBERS_MAX);
    assert!(!room.has_more());
}

#[test]
fn a_reader_that_falls_behind_gets_the_list_again() {
    let (mut room, start) = (Room::default(), Instant::now());
    let (mut fast, mut slow) = (Reading::default(), Reading::default());
    assert_eq!(updates(&mut fast, &room).len() + updates(&mut slow, &room).len(), 2);
    for n in 0..CHANGES_MAX {
        room.enter(Some(&name(format!("{n:05}"))), start);
    }
    assert_eq!(updates(&mut fast, &room).len(), CHANGES_MAX);
    room.enter(Some(&name("one more")), start);
    assert_eq!(updates(&mut fast, &room), ["+one more"]);
    assert_eq!(updates(&mut slow, &room), [format!("{} members", CHANGES_MAX + 1)]);
}

#[test]
fn a_long_list_has_parts_and_changes_between_them_fit() {
    let (mut room, start) = (Room::default(), Instant::now());
    let long = |n: usize| name(format!("{n:0200}"));
    for n in (0..200).step_by(2) {
        room.enter(Some(&long(n)), start);
    }
    let mut reader = Reader::default();
    assert!(reader.read(&room));
    assert!(10 < reader.members.len() && reader.members.len() < 50);
    // A name before the end of the first part, and one after it.
    for n in [1, 199] {
        room.enter(Some(&long(n)), start);
    }
    for n in [2, 198] {
        room.exit(Some(&long(n)), start);
    }
    room.expire(GRACE, start + GRACE);
    assert_eq!(reader.read_all(&room).len(), 100);
    assert!([0, 1, 199].iter().all(|n| reader.members.contains(&long(*n))));
    assert!([2, 198].iter().all(|n| !reader.members.contains(&long(*n))));
}

/// Reports of all replicas, as Redis holds them.
#[derive(Default)]
struct Store {
    reports: BTreeMap<usize, (u64, String)>,
    versions: u64,
}

impl Store {
    fn exchange(&mut self, replica: usize, room: &mut Room, now: Instant) {
        let versions = &mut self.versions;
        let version = room.assign_version(|| {
            *versions += 1;
            *versions
        });
        if room.is_unstored() {
            self.reports.remove(&replica);
            if !room.is_locally_empty() {
                self.reports.insert(replica, (version, room.report().to_json()));
            }
        }
        let known: BTreeMap<_, _> = room.known().into_iter().collect();
        let others = self.reports.iter().filter(|(other, _)| **other != replica);
        let others = others.map(|(other, (version, json))| {
            let is_known = known.get(&other.to_string()) == Some(version);
            let report = (!is_known).then(|| super::report::Report::from_json(json));
            OtherReport { replica: other.to_string(), version: *version, report }
        });
        let stored = self.reports.get(&replica).map(|(version, _)| *version);
        room.apply(Answer { stored, others: others.collect() }, now);
    }
}

#[test]
fn a_member_that_moves_to_another_replica_stays() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut rooms = [Room::default(), Room::default(), Room::default()];
    let alice = name("alice");
    rooms[0].enter(Some(&alice), start);
    rooms[2].enter(None, start);
    let mut reading = Reading::default();
    for (replica, room) in rooms.iter_mut().enumerate() {
        store.exchange(replica, room, start);
    }
    assert_eq!(updates(&mut reading, &rooms[2]), ["1 members"]);
    assert_eq!(rooms[1].roster().members[0].streams, 1);
    rooms[0].exit(Some(&alice), start);
    store.exchange(0, &mut rooms[0], start);
    assert_eq!(rooms[0].anonymous(), 1);
    store.exchange(2, &mut rooms[2], start);
    rooms[1].enter(Some(&alice), start + SECOND);
    store.exchange(1, &mut rooms[1], start + SECOND);
    store.exchange(2, &mut rooms[2], start + 2 * SECOND);
    rooms[2].expire(GRACE, start + GRACE);
    assert!(updates(&mut reading, &rooms[2]).is_empty());
    // Its replica is killed.
    store.reports.remove(&1);
    store.exchange(2, &mut rooms[2], start + 2 * GRACE);
    rooms[2].expire(GRACE, start + 3 * GRACE);
    assert_eq!(updates(&mut reading, &rooms[2]), ["-alice"]);
}

#[test]
fn a_visit_between_two_exchanges_is_told_to_the_readers_of_all_replicas() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut rooms = [Room::default(), Room::default()];
    let alice = name("alice");
    let mut reading = Reading::default();
    updates(&mut reading, &rooms[1]);
    rooms[0].enter(Some(&alice), start);
    rooms[0].exit(Some(&alice), start);
    store.exchange(0, &mut rooms[0], start);
    store.exchange(1, &mut rooms[1], start + SECOND);
    assert_eq!(updates(&mut reading, &rooms[1]), ["+alice"]);
    assert!(rooms[1].roster().members.is_empty());
    // The reader's replica is first. Another report that still has the name changes nothing.
    rooms[1].expire(GRACE, start + GRACE + SECOND);
    assert_eq!(updates(&mut reading, &rooms[1]), ["-alice"]);
    rooms[0].enter(None, start);
    store.exchange(0, &mut rooms[0], start);
    store.exchange(1, &mut rooms[1], start);
    rooms[0].exit(None, start);
    rooms[0].expire(GRACE, start + GRACE);
    for (replica, room) in rooms.iter_mut().enumerate() {
        store.exchange(replica, room, start);
    }
    assert!(updates(&mut reading, &rooms[1]).is_empty());
    assert!(store.reports.is_empty() && rooms[0].is_locally_empty());
}

#[test]
fn a_store_that_lost_everything_causes_no_leave() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut rooms = [Room::default(), Room::default()];
    for (replica, room) in rooms.iter_mut().enumerate() {
        room.enter(Some(&name(format!("member {replica}"))), start);
        store.exchange(replica, room, start);
    }
    store.exchange(0, &mut rooms[0], start);
    let mut reading = Reading::default();
    assert_eq!(updates(&mut reading, &rooms[0]), ["2 members"]);
    store.reports.clear();
    assert!(!rooms[0].is_unstored());
    let answer = Answer::default();
    rooms[0].apply(answer, start);
    assert!(rooms[0].is_unstored(), "the report is written again");
    rooms[1].apply(Answer::default(), start);
    for (replica, room) in rooms.iter_mut().enumerate() {
        store.exchange(replica, room, start + SECOND);
    }
    store.exchange(0, &mut rooms[0], start + 2 * SECOND);
    rooms[0].expire(GRACE, start + 2 * GRACE);
    assert!(updates(&mut reading, &rooms[0]).is_empty());
}

/// Streams begin and end on three replicas at random, and readers read at random. The true number
/// of streams of each name is kept apart.
#[test]
fn all_readers_end_with_the_true_members_in_any_order_of_steps() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut store, mut now) = (Store::default(), Instant::now());
        let mut rooms: Vec<_> = (0..3).map(|_| Room::default()).collect();
        let mut readers: Vec<_> = (0..9).map(|_| Reader::default()).collect();
        let mut streams: Vec<(usize, MemberName)> = Vec::new();
        for _ in 0..400 {
            let replica = random.random_range(0..rooms.len());
            match random.random_range(0..7) {
                0 | 1 => {
                    let name = name(format!("{:0150}", random.random_range(0..80)));
                    rooms[replica].enter(Some(&name), now);
                    streams.push((replica, name));
                }
                2 if !streams.is_empty() => {
                    let at = random.random_range(0..streams.len());
                    let (replica, name) = streams.swap_remove(at);
                    rooms[replica].exit(Some(&name), now);
                }
                3 => store.exchange(replica, &mut rooms[replica], now),
                4 => {
                    now += SECOND * random.random_range(0..4);
                    rooms[replica].expire(GRACE, now);
                }
                _ => {
                    let reader = random.random_range(0..readers.len());
                    readers[reader].read(&rooms[reader % 3]);
                }
            }
        }
        for _ in 0..3 {
            for (replica, room) in rooms.iter_mut().enumerate() {
                store.exchange(replica, room, now);
            }
        }
        let truth: BTreeSet<_> = streams.iter().map(|(_, name)| name.as_str()).collect();
        for room in &mut rooms {
            assert!(!room.is_unstored(), "seed {seed}");
            room.expire(GRACE, now + GRACE);
            let total: usize = room.roster().members.iter().map(|member| member.streams).sum();
            assert_eq!(total, streams.len(), "seed {seed}");
        }
        for (at, reader) in readers.iter_mut().enumerate() {
            let members = reader.read_all(&rooms[at % 3]);
            assert_eq!(members, truth.iter().copied().collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
