//! Presence over a WebSocket: the command, and the records of streams that take part.

use serde_json::json;

use crate::support::{gateway::Gateway, websocket::WebSocket};

#[test]
fn a_client_takes_part_and_asks_who_does() {
    for gateway in [Gateway::dev(&[]), Gateway::dev_over_tls(&[])] {
        let mut alice = WebSocket::open(&gateway, "?topic=lobby&presence=on&name=alice");
        let list = alice.record_of("presence");
        assert_eq!(list["members"], json!([{"subject": "alice", "streams": 1}]), "{list}");
        let mut bob = WebSocket::open(&gateway, "?topic=orders");
        bob.command(
            &json!({"type": "subscribe", "sub": "s", "topics": ["lobby"], "presence": "on",
                            "name": "bob"}),
        );
        let list = bob.record_of("presence");
        assert_eq!((&list["sub"], list["members"].as_array().unwrap().len()), (&json!("s"), 2));
        let join = alice.record_of("presence");
        assert_eq!(join, json!({"type": "presence", "topic": "lobby", "join": "bob"}));
        bob.command(&json!({"type": "presence", "ref": 7, "topic": "lobby"}));
        let answer = bob.record_of("ok");
        assert_eq!(
            answer,
            json!({"type": "ok", "ref": 7, "topic": "lobby", "anonymous": 0, "more": false,
                   "members": [{"subject": "alice", "streams": 1}, {"subject": "bob", "streams": 1}]})
        );
        bob.command(&json!({"type": "presence", "ref": 8, "topic": "no topic"}));
        assert_eq!(bob.record_of("error")["status"], 400);
    }
}

/// An answer has at most 100 members: it stays in memory until its client reads it.
#[test]
fn a_long_list_is_cut() {
    let gateway = Gateway::dev(&[]);
    let mut socket = WebSocket::open(&gateway, "?topic=orders");
    // A connection has a limit of streams, so that the members are on several.
    let mut others: Vec<_> = (0..4).map(|_| WebSocket::open(&gateway, "?topic=orders")).collect();
    for n in 0..104 {
        let other = &mut others[n % 4];
        let name = format!("member-{n}");
        other.command(&json!({"type": "subscribe", "sub": name, "topics": ["lobby"],
                              "presence": "on", "name": name}));
        other.record_of("ok");
    }
    socket.command(&json!({"type": "presence", "topic": "lobby"}));
    let answer = socket.record_of("ok");
    assert_eq!(answer["members"].as_array().unwrap().len(), 100);
    assert_eq!(answer["more"], true);
}
