//! Who may publish, to which topics, and how much.

use serde_json::{Value, json};

use super::{ids, outcome, publish};
use crate::{
    auth::reader::{bearer, gateway as gateway_for, now},
    support::{
        eventually,
        gateway::Gateway,
        http1::{self, Answer},
        jwks::{KeyServer, sign},
    },
};

/// A gateway for publishers with tokens of `keys`.
fn gateway(keys: &KeyServer, flags: &[(&'static str, &str)]) -> Gateway {
    gateway_for(keys, &[&[("publish-auth", "jwt")], flags].concat())
}

/// A token that grants publishing, and no reading.
pub fn token(subject: &str, publish: &[&str]) -> String {
    sign(&json!({ "sub": subject, "exp": now() + 3600, "publish": publish }))
}

fn post(gateway: &Gateway, path: &str, token: &str, data: &str) -> Answer {
    gateway.post(path, &[("Authorization", &bearer(token))], data.as_bytes())
}

#[test]
fn publishing_is_off_by_default() {
    let gateway = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    let answer = gateway.post("/publish/orders", &[], b"x");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--publish-auth"), "{}", answer.text());
    let none = [("push-auth", "none"), ("read-auth", "anonymous"), ("publish-auth", "none")];
    ids(&Gateway::serve(&none).post("/publish/orders", &[], b"x"));
}

#[test]
fn a_token_grants_the_topics_that_its_claim_publish_names() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("topic", "orders"), ("topic", "acme.x"), ("topic", "news")]);
    let alice = token("alice", &["orders", "acme.*"]);
    for (topic, status) in [
        ("orders", 200),
        ("acme.x", 200),
        // Not served, which only a token learns that grants the topic.
        ("acme.y", 404),
        ("news", 403),
        ("orders2", 403),
    ] {
        let answer = post(&gateway, &format!("/publish/{topic}"), &alice, "x");
        assert_eq!(answer.status, status, "{topic}: {}", answer.text());
    }
    let claims = |claims: Value| {
        let mut all = json!({ "sub": "alice", "exp": now() + 3600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        sign(&all)
    };
    for (token, status, text) in [
        (claims(json!({ "topics": ["*"] })), 403, "claim publish"),
        (claims(json!({ "publish": [] })), 403, "claim publish"),
        (claims(json!({ "publish": "orders" })), 200, "ids"),
        (claims(json!({ "publish": true })), 401, "claim publish"),
        (claims(json!({ "publish": ["a b"] })), 401, "claim publish"),
        (claims(json!({ "publish": "*", "sub": null })), 403, "subject"),
        (claims(json!({ "publish": "*", "sub": "x".repeat(257) })), 403, "subject"),
        (claims(json!({ "publish": "*", "sub": "x".repeat(256) })), 200, "ids"),
        (claims(json!({ "publish": "*", "exp": now() - 60 })), 401, "expired"),
        ("x.y.z".to_owned(), 401, "JWT"),
    ] {
        let answer = post(&gateway, "/publish/orders", &token, "x");
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    let nothing = gateway.post("/publish/orders", &[], b"x");
    assert_eq!((nothing.status, nothing.header("www-authenticate")), (401, Some("Bearer")));
    // A token that only publishes does not read, and a claim publish of another form does not harm.
    let read = |token: &str| gateway.get_head("/events", &[("Authorization", &bearer(token))]).0;
    assert_eq!(read(&alice), 403);
    assert_eq!(read(&claims(json!({ "topics": "*", "publish": 7 }))), 200);
    assert_eq!(outcome(&gateway, "denied"), 11);
}

#[test]
fn readers_see_the_publisher_whom_no_client_can_forge() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let reader = sign(&json!({ "sub": "r", "exp": now() + 3600, "topics": "*" }));
    let mut stream = gateway.events_with("?format=message", &[("Authorization", &bearer(&reader))]);
    let alice = token("alice", &["*"]);
    ids(&post(&gateway, "/publish/orders?attributes.a=b", &alice, "x"));
    let message: Value = serde_json::from_str(&stream.next().data).unwrap();
    assert_eq!(message["attributes"], json!({ "a": "b", "publisher": "alice" }));
    let forged = post(&gateway, "/publish/orders?attributes.publisher=bob", &alice, "x");
    assert_eq!(forged.status, 400);
    assert!(forged.text().contains("publisher"), "{}", forged.text());
    let batch = r#"{"messages":[{"attributes":{"publisher":"bob"}}]}"#;
    assert_eq!(post(&gateway, "/publish/orders?format=pubsub", &alice, batch).status, 400);
}

/// A key belongs to its subject: no other subject can claim it, or learn of it.
#[test]
fn keys_of_two_subjects_do_not_collide() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let send = |subject: &str, key: &str| {
        let authorization = bearer(&token(subject, &["*"]));
        let headers = [("Authorization", &*authorization), ("Idempotency-Key", key)];
        ids(&gateway.post("/publish/orders", &headers, b"x"))
    };
    // Each pair joined with a space, a colon or nothing is the same text as another one.
    let pairs = [
        ("a", "1"),
        ("b", "1"),
        ("a", "b 1"),
        ("a b", "1"),
        ("a%20b", "1"),
        ("a:b", "1"),
        ("a", "b:1"),
        ("ab", "1"),
        ("a", "b1"),
    ];
    let stored = pairs.map(|(subject, key)| send(subject, key));
    assert_eq!(outcome(&gateway, "stored"), 9);
    for ((subject, key), id) in pairs.iter().zip(&stored) {
        assert_eq!(send(subject, key), *id, "{subject}, {key}");
    }
    assert_eq!(outcome(&gateway, "duplicate"), 9);
}

/// Anyone may read, and publishers need a token.
#[test]
fn tokens_of_publishers_need_no_tokens_of_readers() {
    let keys = KeyServer::start();
    let url = keys.url();
    let flags = [("push-auth", "none"), ("read-auth", "anonymous"), ("publish-auth", "jwt")];
    let gateway = Gateway::serve(&[&flags[..], &[("read-jwks-url", &*url)]].concat());
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    let mut stream = gateway.events("");
    assert_eq!(publish(&gateway, "/publish/orders", "1", "x").status, 401);
    ids(&post(&gateway, "/publish/orders", &token("alice", &["*"]), "x"));
    assert_eq!(stream.next().data, "x");
}

#[test]
fn keys_that_are_not_there_are_no_refusal() {
    let flags = [("push-auth", "none"), ("read-auth", "anonymous"), ("publish-auth", "jwt")];
    let gateway =
        Gateway::serve(&[&flags[..], &[("read-jwks-url", "http://127.0.0.1:1/")]].concat());
    assert_eq!(gateway.get("/readyz", &[]).status, 503);
    let answer = post(&gateway, "/publish/orders", &token("alice", &["*"]), "x");
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
}

/// A page of another site must not publish with the cookie of whoever has it open.
#[test]
fn a_cookie_publishes_only_from_allowed_pages() {
    let keys = KeyServer::start();
    let flags = [("read-cookie", "session"), ("cors-origin", "https://app.example.com")];
    let listed = gateway(&keys, &flags);
    let open = gateway(&keys, &flags[..1]);
    let cookie = format!("session={}", token("alice", &["*"]));
    let send = |gateway: &Gateway, headers: &[(&str, &str)]| {
        let headers = [&[("Cookie", &*cookie)], headers].concat();
        gateway.post("/publish/orders", &headers, b"x").status
    };
    let app = ("Origin", "https://app.example.com");
    for (headers, at_listed, at_open) in [
        (&[][..], 403, 403),
        (&[("Sec-Fetch-Site", "same-origin")], 200, 200),
        (&[("Sec-Fetch-Site", "none")], 403, 403),
        (&[("Sec-Fetch-Site", "same-site")], 403, 403),
        (&[("Sec-Fetch-Site", "cross-site"), app], 200, 403),
        (&[app], 200, 403),
        (&[("Origin", "https://localhost")], 200, 200),
        (&[("Origin", "https://evil.com")], 400, 403),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", "null")], 400, 403),
    ] {
        assert_eq!(send(&listed, headers), at_listed, "{headers:?}");
        assert_eq!(send(&open, headers), at_open, "{headers:?}");
    }
    // The header has precedence, and needs no page.
    let authorization = bearer(&token("alice", &["*"]));
    assert_eq!(send(&listed, &[("Authorization", &authorization)]), 200);
}

#[test]
fn pages_may_ask_whether_they_may_publish() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("cors-origin", "https://app.example.com")]);
    let ask = |origin: &str, header: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", header),
        ];
        http1::request(gateway.address, "OPTIONS", "/publish/orders", &headers, b"")
    };
    for header in ["authorization", "content-type", "idempotency-key"] {
        let answer = ask("https://app.example.com", header);
        assert_eq!(answer.status, 200, "{header}");
        let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
        assert!(allowed.contains(header), "{allowed}");
        assert!(ask("https://evil.com", header).header("access-control-allow-origin").is_none());
    }
}

#[test]
fn one_subject_and_one_address_publish_so_much() {
    let keys = KeyServer::start();
    let limits = [("publishes-per-subject", "3"), ("trusted-proxies", "1")];
    let by_subject = gateway(&keys, &limits);
    let send = |gateway: &Gateway, subject: &str, from: &str, path: &str, body: &str| {
        let authorization = bearer(&token(subject, &["*"]));
        let headers = [("Authorization", &*authorization), ("X-Forwarded-For", from)];
        gateway.post(path, &headers, body.as_bytes())
    };
    let answers: Vec<_> =
        (0..20).map(|_| send(&by_subject, "alice", "1.1.1.1", "/publish/orders", "x")).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[..3], [200; 3]);
    let refused =
        answers.iter().find(|answer| answer.status == 429).expect("some of 20 in a second");
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("--publishes-per-subject"), "{}", refused.text());
    assert_eq!(send(&by_subject, "bob", "1.1.1.1", "/publish/orders", "x").status, 200);
    // A batch counts by its messages, and one that can never pass says so.
    let batch = |count: usize| json!({ "messages": vec![json!({ "data": "eA==" }); count] });
    let path = "/publish/orders?format=pubsub";
    let all = send(&by_subject, "carol", "1.1.1.1", path, &batch(3).to_string());
    assert_eq!(ids(&all).len(), 3);
    let never = send(&by_subject, "dave", "1.1.1.1", path, &batch(5).to_string());
    assert_eq!(never.status, 413, "{}", never.text());
    assert!(never.text().contains("at most 3"), "{}", never.text());
    let met = "stream_events_limits_met_total{limit=\"publishes-per-subject\"}";
    assert!(2.0 <= by_subject.metric(met));

    let limits = [("publishes-per-address", "2"), ("trusted-proxies", "1")];
    let by_address = gateway(&keys, &limits);
    // Requests without a good token count too, and cost no signature.
    let statuses: Vec<_> = (0..20)
        .map(|_| {
            let headers = [("Authorization", "Bearer x.y.z"), ("X-Forwarded-For", "1.1.1.1")];
            by_address.post("/publish/orders", &headers, b"x").status
        })
        .collect();
    assert_eq!(statuses[..2], [401; 2]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(send(&by_address, "alice", "2.2.2.2", "/publish/orders", "x").status, 200);
}
