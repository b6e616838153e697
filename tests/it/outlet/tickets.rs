//! What a reader with a token has beside a stream: more time, tickets, and limits.

use serde_json::{Value, json};

use crate::{
    auth::reader::{bearer, gateway, now, open},
    support::{
        eventually,
        gateway::Gateway,
        http1::{self, EventSource},
        jwks::{KeyServer, sign},
        redis::RedisServer,
    },
};

pub fn name_of(source: &EventSource) -> String {
    let opened: Value = serde_json::from_str(&source.opened.as_ref().unwrap().data).unwrap();
    opened["stream"].as_str().unwrap().to_owned()
}

pub fn renew(gateway: &Gateway, stream: &str, token: &str) -> u16 {
    let bearer = bearer(token);
    let path = format!("/renew?stream={stream}");
    gateway.post(&path, &[("Authorization", &bearer)], b"").status
}

pub fn ticket(gateway: &Gateway, token: &str) -> String {
    let bearer = bearer(token);
    let answer = gateway.post("/ticket", &[("Authorization", &bearer)], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["expires_in"], 30);
    answer.json()["ticket"].as_str().unwrap().to_owned()
}

pub fn for_seconds(seconds: u64, subject: &str, topics: &[&str]) -> String {
    sign(&json!({ "sub": subject, "exp": now() + seconds, "topics": topics }))
}

/// The next news of the reader's token: how many seconds are left.
fn left(source: &mut EventSource) -> u64 {
    loop {
        let event = source.next_raw().expect("the stream has ended");
        if event.event == "stream-auth" {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            return data["expires_in"].as_u64().unwrap();
        }
    }
}

/// On the same replica and, with a log that is shared, on another.
#[test]
fn a_stream_is_renewed_in_place() {
    let keys = KeyServer::start();
    let redis = RedisServer::start();
    let url = redis.url();
    let shared = [("backplane", &*url)];
    let gateways = [gateway(&keys, &[]), gateway(&keys, &shared), gateway(&keys, &shared)];
    for (opened_at, renewed_at) in [(0, 0), (1, 1), (1, 2)] {
        let at = &gateways[renewed_at];
        let token = for_seconds(3, "alice", &["acme.*", "news"]);
        let mut source = open(&gateways[opened_at], "", &token);
        assert!(left(&mut source) <= 3);
        let name = name_of(&source);
        // Not for longer by anyone else, nor by a token that grants less.
        let refused = if opened_at == renewed_at { 403 } else { 202 };
        assert_eq!(renew(at, &name, &for_seconds(600, "bob", &["*"])), refused);
        assert_eq!(renew(at, &name, &for_seconds(600, "alice", &["acme.*"])), refused);
        assert_eq!(renew(at, &name, "x.y.z"), 401);
        assert_eq!(renew(at, &name, &for_seconds(300, "alice", &["acme.*", "news"])), 202);
        let seconds = left(&mut source);
        assert!((290..=300).contains(&seconds), "{seconds}: nobody else's");
        // It outlives its first token.
        std::thread::sleep(std::time::Duration::from_secs(4));
        gateways[opened_at].publish("acme.x", "still here");
        assert_eq!(source.next().data, "still here");
    }
    let token = for_seconds(60, "alice", &["*"]);
    assert_eq!(renew(&gateways[0], "0123456789abcdef", &token), 404);
    assert_eq!(gateways[0].get("/renew", &[]).status, 405);
}

#[test]
fn a_ticket_opens_one_stream() {
    let keys = KeyServer::start();
    let redis = RedisServer::start();
    let url = redis.url();
    let shared = [("backplane", &*url)];
    let gateways = [gateway(&keys, &[]), gateway(&keys, &shared), gateway(&keys, &shared)];
    for (bought_at, used_at) in [(0, 0), (1, 1), (1, 2)] {
        let token = for_seconds(600, "alice", &["orders"]);
        let name = ticket(&gateways[bought_at], &token);
        let at = &gateways[used_at];
        let query = format!("?ticket={name}");
        // To look at the head is no use of it.
        assert_eq!(
            http1::request(at.address, "HEAD", &format!("/events{query}"), &[], b"").status,
            401
        );
        let mut source = at.events(&query);
        at.publish("others", "not for it");
        at.publish("orders", "for it");
        assert_eq!(source.next().data, "for it");
        assert_eq!(at.get(&format!("/events{query}"), &[]).status, 401, "used");
        // What its reader may see is what the token grants, and what came before it resumes.
        let id = source.last_event_id().to_owned();
        at.publish("orders", "missed");
        let again = ticket(&gateways[bought_at], &token);
        let query = format!("?ticket={again}&last_event_id={id}");
        assert_eq!(at.events(&query).next().data, "missed");
        let wrong = ticket(&gateways[bought_at], &token);
        assert_eq!(at.get(&format!("/events?ticket={wrong}&topic=others"), &[]).status, 403);
    }
    assert_eq!(gateways[0].get("/events?ticket=invented", &[]).status, 401);
    assert_eq!(gateways[0].post("/ticket", &[], b"").status, 401);
    let anonymous = Gateway::dev(&[]);
    assert_eq!(anonymous.post("/ticket", &[], b"").status, 404);
}

#[test]
fn one_subject_and_one_address_have_so_many_streams() {
    let keys = KeyServer::start();
    let limits =
        [("streams-per-subject", "2"), ("streams-per-address", "3"), ("trusted-proxies", "1")];
    let gateway = gateway(&keys, &limits);
    let token = |subject: &str| bearer(&for_seconds(60, subject, &["*"]));
    let open = |subject: &str, from: &str| {
        let headers = [("Authorization", &*token(subject)), ("X-Forwarded-For", from)];
        let mut source = EventSource::connect(gateway.address, "/events", &headers);
        let first = source.next_raw().unwrap();
        (first.event == "stream-open").then_some(source)
    };
    let status = |subject: &str, from: &str| {
        let headers = [("Authorization", &*token(subject)), ("X-Forwarded-For", from)];
        gateway.get_head("/events", &headers).0
    };
    let one = open("alice", "1.1.1.1").unwrap();
    let _two = open("alice", "2.2.2.2").unwrap();
    assert!(open("alice", "3.3.3.3").is_none(), "a browser gets a 200 that ends");
    assert_eq!(status("alice", "3.3.3.3"), 429);
    gateway.until_metric("stream_events_streams_refused_total{reason=\"subject\"}", 2.0);
    drop(one);
    let _again = eventually("room again", || open("alice", "1.1.1.1"));
    let _more = [open("bob", "1.1.1.1").unwrap(), open("carol", "1.1.1.1").unwrap()];
    assert_eq!(status("dave", "1.1.1.1"), 429);
    // What a client writes itself stands to the left.
    assert_eq!(status("dave", "9.9.9.9, 1.1.1.1"), 429);
    assert_eq!(status("dave", "1.1.1.1, 9.9.9.9"), 200);
}

/// A renewal never takes from what the stream has.
#[test]
fn a_token_that_ends_sooner_renews_nothing() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let source = open(&gateway, "", &for_seconds(500, "alice", &["*"]));
    let name = name_of(&source);
    assert_eq!(renew(&gateway, &name, &for_seconds(100, "alice", &["*"])), 403);
    assert_eq!(renew(&gateway, &name, &for_seconds(900, "alice", &["*"])), 202);
}

/// Tokens without a subject: each counts for itself, by its `jti` or by what its issuer has signed.
#[test]
fn a_token_without_a_subject_has_limits_of_its_own() {
    let keys = KeyServer::start();
    let limits = [("streams-per-subject", "1"), ("tickets-per-subject", "1")];
    let gateway = gateway(&keys, &limits);
    let (at, topics) = (now() + 300, json!(["*"]));
    let tokens = [
        json!({ "jti": "one", "exp": at, "topics": topics }),
        json!({ "jti": "two", "exp": at, "topics": topics }),
        json!({ "exp": at + 1, "topics": topics }),
        json!({ "exp": at + 2, "topics": topics }),
        // What an empty subject names is nobody, and not everybody without a name.
        json!({ "sub": "", "exp": at + 3, "topics": topics }),
        json!({ "sub": "", "exp": at + 4, "topics": topics }),
        // A subject of the name of a jti is another holder.
        json!({ "sub": "one", "exp": at, "topics": topics }),
    ];
    let tokens = tokens.map(|claims| sign(&claims));
    let status = |token: &str| gateway.get_head("/events", &[("Authorization", &bearer(token))]).0;
    for token in &tokens {
        let source = open(&gateway, "", token);
        assert_eq!(status(token), 429, "a second stream of {token}");
        let ask = || gateway.post("/ticket", &[("Authorization", &bearer(token))], b"").status;
        let statuses: Vec<_> = (0..10).map(|_| ask()).collect();
        assert_eq!(statuses[0], 200);
        assert!(statuses.contains(&429), "{statuses:?}");
        // Nobody without a subject is the same subject as anybody, not even as itself.
        for without in &tokens[..6] {
            assert_eq!(renew(&gateway, &name_of(&source), without), 403);
        }
        drop(source);
    }
    // The same claims are the same token, however they were signed, and also if a ticket opens it.
    let token = &tokens[2];
    let _source = eventually("room again", || {
        let mut source = EventSource::connect(
            gateway.address,
            "/events",
            &[("Authorization", &*bearer(token)), ("Accept", "text/event-stream")],
        );
        (source.next_raw()?.event == "stream-open").then_some(source)
    });
    let name = eventually("a ticket again", || {
        let answer = gateway.post("/ticket", &[("Authorization", &bearer(token))], b"");
        (answer.status == 200).then(|| answer.json()["ticket"].as_str().unwrap().to_owned())
    });
    assert_eq!(gateway.get(&format!("/events?ticket={name}"), &[]).status, 429);
}

/// The others get tickets still: in this process, and in Redis.
#[test]
fn one_holder_gets_a_share_of_the_tickets() {
    let keys = KeyServer::start();
    let redis = RedisServer::start();
    let url = redis.url();
    let shared = [("backplane", &*url), ("tickets-per-subject", "0")];
    let gateways = [
        gateway(&keys, &[("tickets-per-subject", "0")]),
        gateway(&keys, &shared),
        gateway(&keys, &shared),
    ];
    for ask_at in [&gateways[..1], &gateways[1..]] {
        let token = sign(&json!({ "jti": "greedy", "exp": now() + 300, "topics": ["*"] }));
        let ask = |n: usize, token: &str| {
            let at = &ask_at[n % ask_at.len()];
            at.post("/ticket", &[("Authorization", &bearer(token))], b"")
        };
        let mut tickets = Vec::new();
        for n in 0..500 {
            let answer = ask(n, &token);
            assert_eq!(answer.status, 200, "{n}: {}", answer.text());
            tickets.push(answer.json()["ticket"].as_str().unwrap().to_owned());
        }
        let refused = ask(0, &token);
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        let other = ask_at.last().unwrap();
        assert_eq!(ticket(other, &for_seconds(300, "bob", &["*"])).len(), 32);
        // One that was used makes room.
        drop(other.events(&format!("?ticket={}", tickets[7])));
        eventually("room for one", || (ask(1, &token).status == 200).then_some(()));
        assert_eq!(ask(0, &token).status, 429);
        assert!(
            1.0 <= ask_at[0]
                .metric("stream_events_limits_met_total{limit=\"tickets-per-subject\"}")
        );
    }
}

/// A reader with a good token is not sent to look at the keys.
#[test]
fn a_ticket_that_redis_cannot_look_up_says_so() {
    let keys = KeyServer::start();
    let mut redis = RedisServer::start();
    let url = redis.url();
    let gateway = gateway(&keys, &[("backplane", &*url)]);
    let name = ticket(&gateway, &for_seconds(600, "alice", &["*"]));
    redis.kill();
    let path = format!("/events?ticket={name}");
    let answer = gateway.get(&path, &[]);
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let text = answer.text();
    assert!(text.contains("Redis, --backplane") && text.contains("ticket"), "{text}");
    assert!(!text.contains("read-jwks-url"), "{text}");
    let mut browser =
        EventSource::connect(gateway.address, &path, &[("Accept", "text/event-stream")]);
    let end = browser.next_raw().unwrap();
    assert_eq!((&*end.event, &*end.data), ("stream-end", r#"{"reason":"unready"}"#));
    let bearer = bearer(&for_seconds(600, "alice", &["*"]));
    for path in ["/ticket", "/renew?stream=0123456789abcdef"] {
        let answer = gateway.post(path, &[("Authorization", &bearer)], b"");
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("Redis, --backplane"), "{path}: {}", answer.text());
    }
}

#[test]
fn one_subject_gets_so_many_tickets() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("tickets-per-subject", "2")]);
    let ask = |subject: &str| {
        let bearer = bearer(&for_seconds(60, subject, &["*"]));
        gateway.post("/ticket", &[("Authorization", &bearer)], b"").status
    };
    let statuses: Vec<_> = (0..20).map(|_| ask("alice")).collect();
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask("bob"), 200);
    assert!(1.0 <= gateway.metric("stream_events_limits_met_total{limit=\"tickets-per-subject\"}"));
}
