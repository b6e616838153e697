//! The recipe of a page that shows a state: read the position, then the state, and follow from the
//! position.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::Value;

use super::poll::{data, next, poll};
use crate::support::{
    eventually,
    gateway::Gateway,
    reader::{BY_GATEWAY, Case},
};

const WRITERS: u64 = 3;
/// Versions that each writer writes.
const EACH: u64 = 150;
const READERS: usize = 12;

/// The newest version of each writer.
type State = BTreeMap<u64, u64>;

/// Writers change the state first and publish the change after it, while readers begin.
#[test]
fn position_first_then_state_then_follow_loses_nothing() {
    for cases in BY_GATEWAY {
        let gateway = cases[0].gateway(&[("ring-events", "100000")]);
        let state = Mutex::new(State::new());
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn({
                    let (gateway, state) = (&gateway, &state);
                    move || write(writer, gateway, state)
                });
            }
            for number in 0..READERS {
                let (gateway, state) = (&gateway, &state);
                scope.spawn(move || {
                    let begin = EACH * number as u64 / READERS as u64;
                    let has_begun =
                        || state.lock().unwrap().values().any(|version| begin <= *version);
                    eventually("the writers are as far", || has_begun().then_some(()));
                    let position = poll(gateway, "&limit=0");
                    let seen = state.lock().unwrap().clone();
                    if number % 3 == 0 {
                        follow_by_polls(gateway, next(&position).to_owned(), seen);
                    } else {
                        follow(cases[number % cases.len()], gateway, next(&position), seen);
                    }
                });
            }
        });
    }
}

fn write(writer: u64, gateway: &Gateway, state: &Mutex<State>) {
    for version in 1..=EACH {
        state.lock().unwrap().insert(writer, version);
        gateway.publish("orders", format!("of {writer} {version}"));
    }
}

fn is_complete(seen: &State) -> bool {
    (0..WRITERS).all(|writer| seen.get(&writer) == Some(&EACH))
}

/// Applies a change, unless the state has it already. The change before it must be there.
fn apply(data: &str, seen: &mut State) {
    let numbers: Vec<u64> = data.split(' ').skip(1).map(|n| n.parse().unwrap()).collect();
    let known = seen.entry(numbers[0]).or_default();
    assert!(numbers[1] <= *known + 1, "{data} came after {known}");
    *known = numbers[1].max(*known);
}

fn follow(case: Case, gateway: &Gateway, id: &str, mut seen: State) {
    let mut source = case.resume(gateway, "?topic=orders", id);
    let mut ids = Vec::new();
    while !is_complete(&seen) {
        let event = source.next_raw().unwrap();
        assert_eq!(event.event, "message", "{event:?}");
        assert!(!ids.contains(&event.id), "{event:?} came twice");
        ids.push(event.id);
        apply(&event.data, &mut seen);
    }
}

fn follow_by_polls(gateway: &Gateway, mut id: String, mut seen: State) {
    let mut ids = Vec::new();
    while !is_complete(&seen) {
        let page = poll(gateway, &format!("&topic=orders&wait=20s&limit=7&last_event_id={id}"));
        assert_eq!(page["gap"], Value::Null);
        for event in page["events"].as_array().unwrap() {
            let id = event["id"].as_str().unwrap().to_owned();
            assert!(!ids.contains(&id), "{event} came twice");
            ids.push(id);
        }
        for data in data(&page) {
            apply(&data, &mut seen);
        }
        next(&page).clone_into(&mut id);
    }
}
