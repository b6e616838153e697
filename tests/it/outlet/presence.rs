//! Presence: `presence=on` of streams, and `GET /presence/{topic}`.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};

use super::tickets::ticket;
use crate::{
    auth::reader::{bearer, claims, gateway as of_tokens},
    support::{
        eventually,
        gateway::Gateway,
        http1,
        jwks::{KeyServer, sign},
        parser::Dispatched,
        reader::{CASES, Reader},
    },
};

const QUERY: &str = "?topic=lobby&presence=on";

/// Member of the topic `lobby`, with the other members that its stream has named.
pub struct Member {
    source: Reader,
    pub members: BTreeSet<String>,
    /// All joins and leaves that the stream has sent, as `+alice` and `-alice`.
    pub changes: Vec<String>,
}

impl Member {
    /// Takes a stream that was just opened, and reads the list.
    pub fn of(source: Reader) -> Self {
        let mut member = Self { source, members: BTreeSet::new(), changes: Vec::new() };
        member.read();
        member
    }

    pub fn open(gateway: &Gateway, name: &str) -> Self {
        Self::open_at(gateway.address, name)
    }

    pub fn open_at(address: SocketAddr, name: &str) -> Self {
        Self::of(CASES[0].open_at(address, &format!("{QUERY}&name={name}")))
    }

    /// Reads the next message about members.
    pub fn read(&mut self) -> Value {
        loop {
            let event = self.source.next_raw().expect("the stream goes on");
            if event.event == "stream-presence" {
                return self.apply(&event);
            }
        }
    }

    fn apply(&mut self, event: &Dispatched) -> Value {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["topic"], "lobby");
        if let Some(members) = data["members"].as_array() {
            self.members.clear();
            self.add(members);
        }
        self.add(data["also"].as_array().map_or(&[], Vec::as_slice));
        if let Some(name) = data["join"].as_str() {
            assert!(self.members.insert(name.to_owned()), "{name} joined twice");
            self.changes.push(format!("+{name}"));
        }
        if let Some(name) = data["leave"].as_str() {
            assert!(self.members.remove(name), "{name} left twice");
            self.changes.push(format!("-{name}"));
        }
        data
    }

    fn add(&mut self, members: &[Value]) {
        for member in members {
            let name = member["subject"].as_str().unwrap().to_owned();
            assert!(self.members.insert(name), "{member} is listed twice");
        }
    }

    /// Reads until the stream ends.
    pub fn read_to_the_end(mut self) {
        while let Some(event) = self.source.next_raw() {
            if event.event == "stream-presence" {
                self.apply(&event);
            }
        }
    }

    /// Reads until the members are these. Returns the number of messages.
    pub fn until(&mut self, names: &[&str]) -> usize {
        let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut messages = 0;
        while self.members != names {
            self.read();
            messages += 1;
        }
        messages
    }
}

/// Returns the answer of `GET /presence/lobby`.
pub fn who(address: SocketAddr) -> Value {
    let answer = http1::request(address, "GET", "/presence/lobby", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn gateway() -> Gateway {
    Gateway::dev(&[("presence-grace", "1 s")])
}

#[test]
fn readers_are_told_once_of_each_member() {
    let gateway = gateway();
    assert_eq!(
        who(gateway.address),
        json!({ "topic": "lobby", "members": [], "anonymous": 0, "more": false })
    );
    let mut alice = Member::open(&gateway, "alice");
    assert_eq!(alice.members.len(), 1);
    let twice = [(); 2].map(|()| Member::open(&gateway, "bob"));
    let nameless = Member::of(CASES[0].open(&gateway, QUERY));
    // A stream without presence=on takes no part.
    let outside = gateway.events("?topic=lobby");
    alice.read();
    assert_eq!(alice.changes, ["+bob"]);
    assert_eq!(
        who(gateway.address),
        json!({
            "topic": "lobby",
            "members": [
                { "subject": "alice", "streams": 1 },
                { "subject": "bob", "streams": 2 }
            ],
            "anonymous": 1,
            "more": false
        })
    );
    gateway.until_metric("stream_events_presence_members", 2.0);
    gateway.until_metric("stream_events_presence_topics", 1.0);
    let [first, second] = twice;
    drop((first, nameless, outside));
    eventually("one stream of bob is left", || {
        let who = who(gateway.address);
        (who["members"][1]["streams"] == 1 && who["anonymous"] == 0).then_some(())
    });
    drop(second);
    alice.read();
    assert_eq!(alice.changes, ["+bob", "-bob"]);
    drop(alice);
    gateway.until_metric("stream_events_presence_topics", 0.0);
}

#[test]
fn a_reconnect_within_the_grace_time_is_not_told() {
    let gateway = Gateway::dev(&[("presence-grace", "20 s")]);
    let mut alice = Member::open(&gateway, "alice");
    for _ in 0..10 {
        drop(Member::open(&gateway, "bob"));
        eventually("bob's stream has ended", || {
            (who(gateway.address)["members"].as_array().unwrap().len() == 1).then_some(())
        });
    }
    let _carol = Member::open(&gateway, "carol");
    alice.until(&["alice", "bob", "carol"]);
    assert_eq!(alice.changes, ["+bob", "+carol"]);
}

/// The members come between `stream-open` and the events, and leave the id as it is.
#[test]
fn members_and_events_share_a_stream_in_every_format() {
    for case in CASES {
        let gateway = case.gateway(&[("presence-grace", "1 s")]);
        let mut alice = Member::of(case.open(&gateway, &format!("{QUERY}&name=alice")));
        let query = "?topic=lobby,stage.*&presence=on&name=%3Cb%3E%22";
        let mut other = case.open(&gateway, query);
        alice.read();
        assert_eq!(alice.changes, ["+<b>\""]);
        gateway.publish("lobby", "hello");
        let list = other.next_raw().unwrap();
        assert_eq!(list.event, "stream-presence");
        assert_eq!(list.id, other.opened.as_ref().unwrap().id);
        let member = |name: &str| json!({ "subject": name, "streams": 1 });
        assert_eq!(
            serde_json::from_str::<Value>(&list.data).unwrap(),
            json!({
                "topic": "lobby",
                "members": [member("<b>\""), member("alice")],
                "anonymous": 0,
                "more": false
            })
        );
        assert_eq!(other.next().data, "hello");
        assert_eq!(alice.source.next().data, "hello");
        drop(other);
        alice.read();
        assert_eq!(alice.changes, ["+<b>\"", "-<b>\""]);
    }
}

#[test]
fn what_cannot_take_part_is_refused_with_the_reason() {
    let gateway = gateway();
    let long = format!("topic=lobby&presence=on&name={}", "x".repeat(256));
    for (query, part) in [
        ("topic=lobby&presence=yes", "on or off"),
        ("topic=lobby&name=alice", "presence=on"),
        ("topic=lobby&presence=on&mode=poll", "polls"),
        ("presence=on", "name the topics"),
        ("topic=lobby.*&presence=on", "name the topics"),
        ("topic=lobby&presence=on&name=", "is empty"),
        ("topic=lobby&presence=on&name=a%0Ab", "control character"),
        ("topic=lobby&presence=on&name=%20a", "space"),
        (&long, "255 bytes"),
    ] {
        let answer = gateway.get(&format!("/events?{query}"), &[]);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(part), "{query}: {}", answer.text());
    }
    for path in ["/presence/a%21b", "/presence/ab"] {
        assert_eq!(gateway.get(path, &[]).status, 400, "{path}");
    }
    let served = Gateway::dev(&[("topic", "lobby")]);
    assert_eq!(served.get("/presence/stage", &[]).status, 404);
    assert_eq!(served.get("/presence/lobby", &[]).status, 200);
}

#[test]
fn a_member_has_the_subject_of_its_token() {
    let keys = KeyServer::start();
    let gateway = of_tokens(&keys, &[("presence-grace", "1 s")]);
    let headers = |claims: &Value| bearer(&sign(claims));
    let open = |claims: &Value| {
        let source =
            CASES[0].connect(&gateway, QUERY, &[("Authorization", &headers(claims))]).opened();
        Member::of(source)
    };
    let alice = claims(&["lobby"]);
    let mut member = open(&alice);
    assert_eq!(member.members, ["alice".to_owned()].into());
    let mut bob = claims(&["lob.*", "lobby"]);
    bob["sub"] = "bob".into();
    let _bob = open(&bob);
    member.read();
    assert_eq!(member.changes, ["+bob"]);
    let mut nameless = claims(&["lobby"]);
    nameless.as_object_mut().unwrap().remove("sub");
    let _nameless = open(&nameless);
    // A ticket is as good as its token.
    let mut carol = claims(&["lobby"]);
    carol["sub"] = "carol".into();
    let ticket = ticket(&gateway, &sign(&carol));
    let _carol = Member::of(CASES[0].open(&gateway, &format!("{QUERY}&ticket={ticket}")));
    member.read();
    assert_eq!(member.changes, ["+bob", "+carol"]);

    let who = |token: &str| gateway.get("/presence/lobby", &[("Authorization", token)]);
    let answer = who(&headers(&alice));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["members"].as_array().unwrap().len(), 3);
    assert_eq!(answer.json()["anonymous"], 1);
    assert_eq!(who(&headers(&claims(&["stage"]))).status, 403);
    assert_eq!(gateway.get("/presence/lobby", &[]).status, 401);

    let refused = |query: &str, claims: &Value| {
        let path = format!("/events{QUERY}{query}");
        let answer = gateway.get(&path, &[("Authorization", &headers(claims))]);
        assert_eq!(answer.status, 400, "{query} {claims}");
        answer.text()
    };
    assert!(refused("&name=bob", &alice).contains("--read-auth anonymous"));
    let mut long = alice;
    long["sub"] = "x".repeat(256).into();
    assert!(refused("", &long).contains("subject (sub)"));
}

/// A page of another origin may read, as it may read `/events`.
#[test]
fn the_members_have_the_rules_of_cors_of_a_stream() {
    let gateway = Gateway::serve(&[
        ("push-auth", "none"),
        ("read-auth", "anonymous"),
        ("cors-origin", "https://app.example"),
    ]);
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let origin = [("Origin", origin)];
        let of = |path: &str| {
            let (status, headers) = gateway.get_head(path, &origin);
            (status, http1::header(&headers, "access-control-allow-origin").map(str::to_owned))
        };
        assert_eq!(of("/presence/lobby"), of("/events?topic=lobby"));
        assert_eq!(of("/presence/lobby").1.is_some(), allowed);
    }
}

#[test]
fn topics_beyond_the_limit_are_refused_for_now() {
    let gateway = gateway();
    let topics = |n: usize| (0..16).map(move |k| format!("topic-{n}-{k}")).collect::<Vec<_>>();
    let open = |n: usize| {
        let query = format!("?topic={}&presence=on", topics(n).join(","));
        CASES[0].open(&gateway, &query)
    };
    let streams: Vec<_> = (0..62).map(open).collect();
    gateway.until_metric("stream_events_presence_topics", 992.0);
    let path = format!("/events?topic={}&presence=on", topics(62).join(","));
    let refused = gateway.get(&path, &[]);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("1000 topics"));
    // A topic that is there already, and streams without presence, are not concerned.
    drop(Member::open(&gateway, "alice"));
    drop(gateway.events(&path["/events".len()..path.len() - "&presence=on".len()]));
    drop(streams);
    gateway.until_metric("stream_events_presence_topics", 0.0);
    drop(open(62));
}
