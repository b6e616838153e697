//! The command `publish` of a WebSocket.

use serde_json::{Value, json};

use crate::{
    auth::reader,
    support::{
        gateway::Gateway,
        jwks::{KeyServer, sign},
        websocket::WebSocket,
    },
};

fn opened(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> WebSocket {
    let mut socket = WebSocket::open_with(gateway, query, headers);
    assert_eq!(socket.record()["type"], "open");
    socket
}

/// Sends a command and returns its answer, which can come before or after the event.
fn publish(socket: &mut WebSocket, command: &Value) -> (Value, Option<Value>) {
    socket.command(command);
    let first = socket.record();
    if first["type"] == "event" { (socket.record(), Some(first)) } else { (first, None) }
}

#[test]
fn a_client_publishes_and_reads_its_own_event() {
    for gateway in [Gateway::dev(&[]), Gateway::dev_over_tls(&[])] {
        let mut socket = opened(&gateway, "?topic=room&format=message", &[]);
        for (data, shown) in [
            (json!({"data": {"n": 1.0, "text": "hi"}}), json!({"data": {"n": 1.0, "text": "hi"}})),
            (json!({"data": "plain text"}), json!({"data": "plain text"})),
            (json!({"data_base64": "/w=="}), json!({"data_base64": "/w=="})),
            (
                json!({"data": 7, "event": "moved", "key": "k", "attributes": {"a": "b"}}),
                json!({"data": 7, "event": "moved", "ordering_key": "k",
                       "attributes": {"a": "b", "event": "moved"}}),
            ),
        ] {
            let mut command = json!({"type": "publish", "ref": 1, "topic": "room"});
            command.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
            let (ok, event) = publish(&mut socket, &command);
            let event = event.unwrap_or_else(|| socket.record());
            assert_eq!((&ok["type"], &ok["ref"]), (&json!("ok"), &json!(1)), "{ok}");
            assert_eq!(ok["ids"], json!([event["id"]]));
            assert!(ok["id"].is_null(), "an answer is no position of the stream");
            for (name, value) in shown.as_object().unwrap() {
                assert_eq!(&event[name], value, "{event}");
            }
        }
        // An empty id is none.
        let command = json!({"type": "publish", "topic": "room", "id": "", "data": "each"});
        let [first, second] = [(); 2].map(|()| {
            let (ok, event) = publish(&mut socket, &command);
            event.unwrap_or_else(|| socket.record());
            ok["ids"].clone()
        });
        assert_ne!(first, second);
        // The same id again is the same event.
        let command = json!({"type": "publish", "topic": "room", "id": "line-1", "data": "once"});
        let (first, event) = publish(&mut socket, &command);
        let event = event.unwrap_or_else(|| socket.record());
        assert_eq!(first["ids"], json!([event["id"]]));
        socket.command(&command);
        assert_eq!(socket.record(), json!({"type": "ok", "ids": first["ids"]}), "no second event");
    }
}

#[test]
fn bad_messages_are_refused_and_leave_the_connection_open() {
    let gateway = Gateway::dev(&[("topic", "room")]);
    let mut socket = opened(&gateway, "?topic=room", &[]);
    for (command, status) in [
        (json!({"topic": "other", "data": 1}), 404),
        (json!({"topic": "no topic", "data": 1}), 400),
        (json!({"data": 1}), 400),
        (json!({"topic": "room"}), 400),
        (json!({"topic": "room", "data": 1, "data_base64": ""}), 400),
        (json!({"topic": "room", "data_base64": "?"}), 400),
        (json!({"topic": "room", "data": 1, "event": "a", "attributes": {"event": "b"}}), 400),
        (json!({"topic": "room", "data": 1, "attributes": {"googclient_x": "b"}}), 400),
        (json!({"topic": "room", "data": 1, "id": "x".repeat(256)}), 400),
    ] {
        let mut all = json!({"type": "publish", "ref": "r"});
        all.as_object_mut().unwrap().extend(command.as_object().unwrap().clone());
        socket.command(&all);
        let answer = socket.record();
        assert_eq!((&answer["type"], &answer["ref"]), (&json!("error"), &json!("r")), "{command}");
        assert_eq!(answer["status"], status, "{command}: {answer}");
    }
    let off = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    let mut socket = opened(&off, "?topic=room", &[]);
    socket.command(&json!({"type": "publish", "topic": "room", "data": 1}));
    let answer = socket.record();
    assert_eq!(answer["status"], 404);
    assert!(answer["detail"].as_str().unwrap().contains("--publish-auth"), "{answer}");
}

#[test]
fn a_token_says_where_its_bearer_may_publish_and_who_publishes() {
    let keys = KeyServer::start();
    let gateway = reader::gateway(&keys, &[("publish-auth", "jwt")]);
    let bearer = |publish: &Value| {
        let mut claims = reader::claims(&["*"]);
        claims["publish"] = publish.clone();
        reader::bearer(&sign(&claims))
    };
    let (alice, reads_only) = (bearer(&json!(["room.*"])), bearer(&json!([])));
    let query = "?topic=room.1&format=message";
    let mut socket = opened(&gateway, query, &[("Authorization", &alice)]);
    let command = json!({"type": "publish", "topic": "room.1", "data": "hi"});
    let (ok, event) = publish(&mut socket, &command);
    let event = event.unwrap_or_else(|| socket.record());
    assert_eq!(ok["ids"], json!([event["id"]]), "{ok}");
    assert_eq!(event["attributes"]["publisher"], reader::claims(&[])["sub"], "{event}");
    let forged = json!({"type": "publish", "topic": "room.1", "data": "hi",
                        "attributes": {"publisher": "bob"}});
    socket.command(&forged);
    assert_eq!(socket.record()["status"], 400);
    socket.command(&json!({"type": "publish", "topic": "hall", "data": "hi"}));
    assert_eq!(socket.record()["status"], 403);
    // A token that replaces another one must let the client go on with what it does.
    for (token, kind) in [(&reads_only, "error"), (&alice, "ok")] {
        let token = token.strip_prefix("Bearer ").unwrap();
        socket.command(&json!({"type": "renew", "ref": 1, "token": token}));
        let answer = socket.record();
        assert_eq!((&answer["type"], &answer["ref"]), (&json!(kind), &json!(1)), "{answer}");
    }
    let mut socket = opened(&gateway, query, &[("Authorization", &reads_only)]);
    socket.command(&command);
    assert_eq!(socket.record()["status"], 403);
}

/// A message that one subject sends over HTTP and over a WebSocket with the same idempotency key is
/// one event. Another subject with this key publishes another event.
#[test]
fn each_subject_has_its_own_idempotency_keys_and_limits() {
    // Enough to exceed a limit of 5 a second also on a slow machine.
    const PUBLISHES_MAX: usize = 1_000;
    let keys = KeyServer::start();
    let limits = [("publish-auth", "jwt"), ("publishes-per-subject", "5")];
    let gateway = reader::gateway(&keys, &limits);
    let [alice, bob] = ["alice", "bob"].map(|subject| {
        let mut claims = reader::claims(&["*"]);
        (claims["sub"], claims["publish"]) = (json!(subject), json!(["*"]));
        reader::bearer(&sign(&claims))
    });
    let open = |bearer: &str| WebSocket::open_with(&gateway, "", &[("Authorization", bearer)]);
    let command = json!({"type": "publish", "topic": "room", "id": "line-1", "data": "hi"});
    let publish = |socket: &mut WebSocket| {
        socket.command(&command);
        socket.record()
    };
    let (mut of_alice, mut of_bob) = (open(&alice), open(&bob));
    let stored = publish(&mut of_alice);
    assert_eq!(stored["type"], "ok", "{stored}");
    assert_eq!(publish(&mut of_alice), stored);
    let headers = [("Authorization", &*alice), ("Idempotency-Key", "line-1")];
    assert_eq!(gateway.post("/publish/room", &headers, b"hi").json()["ids"], stored["ids"]);
    let another = publish(&mut of_bob);
    assert_eq!(another["type"], "ok", "{another}");
    assert_ne!(another["ids"], stored["ids"]);

    let mut answers = (0..PUBLISHES_MAX).map(|_| publish(&mut of_alice));
    let refused = answers.find(|answer| answer["type"] == "error").expect("no publish is refused");
    assert_eq!(refused["status"], 429, "{refused}");
    assert!(refused["retry"].is_u64(), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("--publishes-per-subject"), "{refused}");
    assert_eq!(publish(&mut of_bob), another, "another subject goes on");

    let by_address = Gateway::dev(&[("publishes-per-address", "2")]);
    let mut socket = WebSocket::open(&by_address, "");
    let mut answers = (0..PUBLISHES_MAX).map(|_| publish(&mut socket));
    let refused = answers.find(|answer| answer["type"] == "error").expect("no publish is refused");
    assert!(refused["detail"].as_str().unwrap().contains("--publishes-per-address"), "{refused}");
}
