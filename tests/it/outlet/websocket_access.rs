//! Who may open a WebSocket, for how long, and how refusals and ends are told.

use serde_json::{Value, json};

use super::websocket::opened;
use crate::{
    auth::reader::{bearer, claims, gateway, now},
    support::{
        eventually,
        gateway::Gateway,
        jwks::{KeyServer, sign},
        websocket::WebSocket,
    },
};

#[test]
fn refusals_are_accepted_and_closed_with_a_code() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    for (query, code, reason) in [
        ("?topics=orders", 4400, "bad-request"),
        ("?topic=orders&filter=x", 4400, "bad-request"),
        ("?topic=orders&mode=poll", 4400, "bad-request"),
        ("?topic=orders&limit=1", 4400, "bad-request"),
        ("?topic=chats", 4404, "not-served"),
        ("?topic=orders&ticket=x", 4401, "unauthorized"),
    ] {
        let (last, closed) = WebSocket::open(&gateway, query).end();
        let last = last.unwrap();
        assert_eq!((closed, &last["reason"]), (Some(code), &json!(reason)), "{query}");
        assert!(last["retry"].is_null() && last["detail"].is_string(), "{last}");
    }
    let few = Gateway::dev(&[("streams-per-address", "1")]);
    let _first = opened(&few, "?topic=orders");
    let (last, closed) = WebSocket::open(&few, "?topic=orders").end();
    assert_eq!(closed, Some(4429));
    assert!(5_000 <= last.unwrap()["retry"].as_u64().unwrap());
}

/// The last record tells a client that may come back when to come back.
#[test]
fn ends_and_temporary_refusals_have_a_retry_time() {
    let closed = |mut socket: WebSocket| {
        let (last, code) = socket.end();
        let last = last.unwrap();
        assert_eq!(last["type"], "end");
        (code.unwrap(), last["reason"].as_str().unwrap().to_owned(), last["retry"].as_u64())
    };
    let full = Gateway::dev(&[("subscribers-max", "1")]);
    let _first = opened(&full, "?topic=orders");
    let (code, reason, retry) = closed(WebSocket::open(&full, "?topic=orders"));
    assert_eq!((code, &*reason), (1013, "busy"));
    assert!(Some(5_000) <= retry, "{retry:?}");

    // Nobody listens on this port, so there are no keys to verify the token with.
    let without_keys = Gateway::serve(&[
        ("push-auth", "none"),
        ("read-auth", "jwt"),
        ("read-jwks-url", "http://127.0.0.1:1/"),
    ]);
    let (code, reason, retry) =
        closed(connect(&without_keys, "?topic=orders", &token(&["orders"], 60)));
    assert_eq!((code, &*reason), (1013, "unready"));
    assert!(Some(5_000) <= retry, "{retry:?}");

    let short = Gateway::dev(&[("stream-age-max", "4 s")]);
    let mut socket = opened(&short, "?topic=orders");
    short.publish("orders", "1");
    let id = socket.record_of("event")["id"].clone();
    let (code, reason, retry) = closed(socket);
    assert_eq!((code, &*reason), (1001, "max-age"));
    assert!(retry.is_some_and(|retry| retry < 2_000), "{retry:?}");
    short.publish("orders", "2");
    let query = format!("?topic=orders&last_event_id={}", id.as_str().unwrap());
    let mut resumed = opened(&short, &query);
    assert_eq!(resumed.record_of("event")["data"], 2);
    let (code, reason, retry) = closed(WebSocket::open(&short, ""));
    assert_eq!((code, &*reason), (1001, "max-age"), "without a stream");
    assert!(retry.is_some());
}

/// Returns a token that grants topics for some seconds.
fn token(topics: &[&str], seconds: u64) -> String {
    let mut claims = claims(topics);
    claims["exp"] = json!(now() + seconds);
    sign(&claims)
}

fn connect(gateway: &Gateway, query: &str, token: &str) -> WebSocket {
    WebSocket::open_with(gateway, query, &[("Authorization", &bearer(token))])
}

/// Returns the reason and the code with which a connection ends.
fn end(mut socket: WebSocket) -> (Value, Option<u16>) {
    let (last, code) = socket.end();
    (last.unwrap()["reason"].take(), code)
}

#[test]
fn tokens_and_tickets_are_those_of_other_outlets() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    assert_eq!(
        end(WebSocket::open(&gateway, "?topic=orders")),
        (json!("unauthorized"), Some(4401))
    );
    let forged = connect(&gateway, "?topic=orders", "a.b.c");
    assert_eq!(end(forged), (json!("unauthorized"), Some(4401)));
    let alice = token(&["orders"], 3_600);
    assert_eq!(end(connect(&gateway, "?topic=chats", &alice)), (json!("forbidden"), Some(4403)));
    let mut socket = connect(&gateway, "", &alice);
    socket.command(&json!({"type": "subscribe", "ref": 1, "sub": "a", "topics": ["chats"]}));
    let error = socket.record();
    assert_eq!((&error["ref"], &error["status"]), (&json!(1), &json!(403)));
    assert_eq!(error["title"], "Forbidden");
    // Without topics, a stream has those that the token grants.
    socket.command(&json!({"type": "subscribe"}));
    assert_eq!(socket.record_of("open")["topics"], json!([]));
    gateway.publish("chats", "hidden");
    gateway.publish("orders", "shown");
    assert_eq!(socket.record()["data"], "shown");
    let ticket = gateway.post("/ticket", &[("Authorization", &bearer(&alice))], b"").json();
    let query = format!("?topic=orders&ticket={}", ticket["ticket"].as_str().unwrap());
    opened(&gateway, &query);
    assert_eq!(end(WebSocket::open(&gateway, &query)), (json!("unauthorized"), Some(4401)));
}

#[test]
fn a_connection_ends_with_its_token_and_is_renewed_by_another_one() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let mut short = connect(&gateway, "?topic=orders", &token(&["orders"], 3));
    let mut without_stream = connect(&gateway, "", &token(&["orders"], 3));
    let mut renewed = connect(&gateway, "?topic=orders", &token(&["orders"], 3));
    let mut several = connect(&gateway, "?topic=orders", &token(&["orders"], 3));
    several.command(&json!({"type": "subscribe", "ref": 1, "sub": "a"}));
    let mut bob = claims(&["orders"]);
    bob["sub"] = json!("bob");
    for socket in [&mut renewed, &mut several] {
        for (token, status) in
            [(sign(&bob), 403), (token(&["chats"], 3_600), 403), ("x".into(), 401)]
        {
            socket.command(&json!({"type": "renew", "ref": 2, "token": token}));
            assert_eq!(socket.record_of("error")["status"], status);
        }
        socket.command(&json!({"type": "renew", "ref": 3, "token": token(&["orders"], 3_600)}));
        let ok = loop {
            let ok = socket.record_of("ok");
            if ok["ref"] == 3 {
                break ok;
            }
        };
        assert!(3_500 < ok["expires_in"].as_u64().unwrap(), "{ok}");
    }
    assert!(3_500 < renewed.record_of("auth")["expires_in"].as_u64().unwrap());
    let subs =
        [several.record_of("auth"), several.record_of("auth")].map(|auth| auth["sub"].clone());
    assert!(subs.contains(&json!("a")) && subs.contains(&Value::Null), "{subs:?}");
    for socket in [&mut short, &mut without_stream] {
        let (last, code) = socket.end();
        let last = last.unwrap();
        assert_eq!((code, &last["reason"]), (Some(4401), &json!("expired")));
        assert!(last["retry"].is_u64());
    }
    gateway.publish("orders", "later");
    assert_eq!(renewed.record_of("event")["data"], "later");
    several.record_of("event");
    several.record_of("event");
}

#[test]
fn a_renewal_over_http_reaches_a_websocket() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let mut socket = connect(&gateway, "?topic=orders", &token(&["orders"], 30));
    let stream = socket.record_of("open")["stream"].as_str().unwrap().to_owned();
    let auth = bearer(&token(&["orders"], 3_600));
    let path = format!("/renew?stream={stream}");
    assert_eq!(gateway.post(&path, &[("Authorization", &auth)], b"").status, 202);
    eventually("the stream confirms it", || {
        (100 < socket.record_of("auth")["expires_in"].as_u64().unwrap()).then_some(())
    });
}
