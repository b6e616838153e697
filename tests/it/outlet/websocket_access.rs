//! Who may open a WebSocket, for how long, and how refusals and ends are told.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::websocket::opened;
use crate::{
    auth::reader::{bearer, claims, gateway, now},
    support::{
        eventually,
        gateway::Gateway,
        http1,
        jwks::{KeyServer, sign},
        seed,
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

#[test]
fn pages_of_other_origins_are_refused() {
    let dev = Gateway::dev(&[]);
    let open = [("push-auth", "none"), ("read-auth", "anonymous")];
    let any = Gateway::serve(&open);
    let listed = Gateway::serve(&[&open[..], &[("cors-origin", "https://app.example")]].concat());
    for (gateway, origin, is_allowed) in [
        (&dev, "https://app.example", false),
        (&dev, "http://localhost:3000", true),
        (&dev, "null", true),
        (&any, "https://app.example", true),
        (&listed, "https://app.example", true),
        (&listed, "https://evil.example", false),
        (&listed, "https://localhost", true),
    ] {
        let mut socket = WebSocket::open_with(gateway, "?topic=orders", &[("Origin", origin)]);
        if is_allowed {
            assert_eq!(socket.record()["type"], "open", "{origin}");
        } else {
            assert_eq!(socket.end().1, Some(4403), "{origin}");
        }
    }
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

/// A page of another site that opens a WebSocket sends the reader's cookie.
#[test]
fn pages_of_other_sites_may_not_use_the_cookie() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("read-cookie", "session")]);
    let cookie = format!("session={}", token(&["orders"], 3_600));
    let open = |headers: &[(&str, &str)]| {
        let headers = [&[("Cookie", cookie.as_str())], headers].concat();
        WebSocket::open_with(&gateway, "?topic=orders", &headers)
    };
    for headers in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
        &[("Origin", "null")],
    ] {
        assert_eq!(end(open(headers)), (json!("forbidden"), Some(4403)), "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("Origin", "https://localhost")],
        &[("Origin", "http://localhost"), ("Sec-Fetch-Site", "same-origin")],
    ] {
        assert_eq!(open(headers).record()["type"], "open", "{headers:?}");
    }
    // A token of its own is what any page may use.
    let auth = bearer(&token(&["orders"], 3_600));
    let headers = [("Authorization", auth.as_str()), ("Origin", "https://evil.example")];
    let mut socket = WebSocket::open_with(&gateway, "?topic=orders", &headers);
    assert_eq!(socket.record()["type"], "open");
}

/// All connections end with 1012 and a retry time of their own, spread over the drain.
#[test]
fn a_drain_closes_all_connections_one_after_another() {
    const STREAMS: usize = 1_000;
    const OTHERS: usize = 20;
    let mut gateway = Gateway::dev(&[("drain-timeout", "4 s"), ("drain-delay", "0 s")]);
    let mut sockets: Vec<_> = (0..STREAMS).map(|_| opened(&gateway, "?topic=orders")).collect();
    sockets.extend((0..OTHERS).map(|_| WebSocket::open(&gateway, "")));
    let start = Instant::now();
    gateway.begin_stop();
    let address = gateway.address;
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .chunks_mut((STREAMS + OTHERS) / 20)
            .map(|some| scope.spawn(|| some.iter_mut().map(drained).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ends.len(), STREAMS + OTHERS);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let retries: std::collections::BTreeSet<_> = ends.iter().collect();
    assert!(100 < retries.len(), "each has a retry time of its own");
    gateway.stop();
    assert!(TcpStream::connect(address).is_err());
}

/// Reads to the end of a connection in a drain. Returns its retry time.
fn drained(socket: &mut WebSocket) -> u64 {
    let (last, code) = socket.end();
    let last = last.expect("a record");
    assert_eq!((code, &last["reason"]), (Some(1012), &json!("draining")), "{last}");
    last["retry"].as_u64().unwrap()
}

/// A reader with cuts at random moments receives what an uncut reader of server-sent events does.
#[test]
fn fifty_cuts_lose_and_repeat_nothing() {
    let mut random = StdRng::seed_from_u64(seed("fifty_cuts_lose_and_repeat_nothing"));
    let gateway = Gateway::dev(&[]);
    let mut uncut = gateway.events("?topic=orders");
    let (mut id, mut received) = (String::new(), Vec::new());
    let mut published = 0;
    for cut in 0..50 {
        let query = format!("?topic=orders&last_event_id={id}");
        let mut socket =
            WebSocket::on(http1::connect(gateway.address), &format!("/ws{query}"), &[]);
        let open = socket.record();
        if id.is_empty() {
            open["id"].as_str().unwrap().clone_into(&mut id);
        }
        for _ in 0..random.random_range(0..20) {
            gateway.publish("orders", published.to_string());
            published += 1;
        }
        let mut left = if cut < 49 { random.random_range(0..12) } else { usize::MAX };
        while received.len() < published && 0 < left {
            let event = socket.record_of("event");
            event["id"].as_str().unwrap().clone_into(&mut id);
            received.push((id.clone(), event["data"].to_string()));
            left -= 1;
        }
    }
    let all: Vec<_> = (0..published).map(|_| uncut.next()).map(|it| (it.id, it.data)).collect();
    assert_eq!(received, all);
}
