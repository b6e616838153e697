//! Tests of the messages about members in a session.

use super::{
    fixture::{Gateway, KEEP_ALIVE, Stream, Woken, hub, topic},
    *,
};
use crate::model::presence::{MemberName, Presence, PresenceUpdate};

/// Returns a stream that takes part in `orders` under a name.
fn pending(gateway: &Gateway, name: &str) -> PendingStream {
    let name = name.parse::<MemberName>().unwrap();
    let presence = gateway.context.presence.rooms().reserve(&[topic("orders")], Some(name));
    PendingStream { presence: Some(presence.unwrap()), ..gateway.pending(Start::Live) }
}

fn say_presence(stream: &mut Stream) -> String {
    let Control::Presence(presence) = stream.say() else { panic!("no presence") };
    let Presence { topic, update } = *presence;
    assert_eq!(topic.as_str(), "orders");
    match update {
        PresenceUpdate::Members(roster) => {
            let names = roster.members.iter().map(|member| member.name.as_str());
            names.collect::<Vec<_>>().join(" ")
        }
        PresenceUpdate::Join(name) => format!("+{name}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_members_follow_the_open_and_changes_wake_the_stream() {
    let gateway = Gateway::new(hub(9));
    let mut alice = gateway.open_pending(pending(&gateway, "alice"));
    alice.say_open();
    assert_eq!(say_presence(&mut alice), "alice");
    assert_eq!(alice.wait(), KEEP_ALIVE);
    let woken = Woken::register(&alice);
    let mut bob = gateway.open_pending(pending(&gateway, "bob"));
    assert!(woken.was_woken());
    assert_eq!(say_presence(&mut alice), "+bob");
    assert_eq!(alice.wait(), KEEP_ALIVE, "the message counts as one");
    bob.say_open();
    let event = gateway.publish("orders", "a");
    assert_eq!(say_presence(&mut bob), "alice bob");
    assert_eq!(bob.give(), format!("{event} a\n"));
    bob.wait();
    assert_eq!(alice.give(), format!("{event} a\n"));
    drop(bob);
    assert_eq!(alice.wait(), KEEP_ALIVE, "bob may come back");
}

#[test]
fn a_change_before_the_waker_is_registered_wakes_the_stream() {
    let gateway = Gateway::new(hub(9));
    let mut alice = gateway.open_pending(pending(&gateway, "alice"));
    alice.say_open();
    say_presence(&mut alice);
    alice.wait();
    let _bob = gateway.open_pending(pending(&gateway, "bob"));
    assert!(Woken::register(&alice).was_woken());
}

#[test]
fn a_stream_that_waits_for_the_log_is_no_member_yet() {
    let gateway = Gateway::new(hub(9));
    let mut alice = gateway.open_pending(pending(&gateway, "alice"));
    alice.say_open();
    say_presence(&mut alice);
    let (mut bob, answer) = gateway.wait_for_log(pending(&gateway, "bob"));
    let (carol, _answer) = gateway.wait_for_log(pending(&gateway, "carol"));
    bob.wait();
    alice.wait();
    drop(carol);
    answer.set(Ok(Start::Live));
    bob.say_open();
    assert_eq!(say_presence(&mut bob), "alice bob");
    assert_eq!(say_presence(&mut alice), "+bob");
    alice.wait();
}

#[test]
fn a_stream_that_ends_says_no_more_about_members() {
    let gateway = Gateway::new(hub(9));
    let mut alice = pending(&gateway, "alice");
    alice.end_at = gateway.begun + SECOND;
    let mut alice = gateway.open_pending(alice);
    alice.say_open();
    say_presence(&mut alice);
    let _bob = gateway.open_pending(pending(&gateway, "bob"));
    alice.advance(SECOND);
    assert_eq!(alice.say_end().reason, EndReason::MaxAge);
}
