//! `Session` of gRPC: several streams and commands over one call.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    auth::reader::{bearer, claims, gateway as with_tokens, now},
    support::{
        eventually,
        gateway::Gateway,
        grpc::{
            Call, SERVICE,
            proto::{
                Command, PresenceRequest, PublishRequest, Record, Renew, Subscribe,
                SubscribeRequest, Unsubscribe, command::Command as Do, record::Record as Kind,
            },
        },
        jwks::{KeyServer, sign},
        process::serve,
    },
};

fn session(gateway: &Gateway, headers: &[(&str, &str)]) -> Call {
    Call::begin(gateway, &format!("{SERVICE}Session"), headers).answered()
}

fn command(reference: &str, command: Do) -> Command {
    Command { r#ref: reference.to_owned(), command: Some(command) }
}

fn subscribe(sub: &str, topic: &str) -> Do {
    let request = SubscribeRequest { topics: vec![topic.to_owned()], ..Default::default() };
    Do::Subscribe(Subscribe { sub: sub.to_owned(), request: Some(request) })
}

/// Sends a command, and returns the code of its answer, which is 0 if it was carried out.
fn answer(call: &mut Call, reference: &str, what: Do) -> i32 {
    call.send(&command(reference, what));
    let records = std::iter::from_fn(|| call.record().record);
    let mut answers = records.skip_while(|record| matches!(record, Kind::Auth(_)));
    match answers.next().unwrap() {
        Kind::Ok(ok) => {
            assert_eq!(ok.r#ref, reference);
            0
        }
        Kind::Error(error) => {
            assert_eq!(error.r#ref, reference);
            assert!(!error.message.is_empty());
            error.code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_open_and_close_streams_and_publish() {
    let gateway = Gateway::dev(&[]);
    let mut call = session(&gateway, &[]);
    for (sub, topic) in [("a", "orders"), ("", "chats")] {
        assert_eq!(answer(&mut call, sub, subscribe(sub, topic)), 0);
        let open = call.record();
        assert!(matches!(open.record, Some(Kind::Open(_))), "{open:?}");
        assert_eq!(open.sub, sub);
    }
    let publish = |topic: &str, data: Vec<u8>| {
        let topic = topic.to_owned();
        Do::Publish(PublishRequest { topic, data: data.into(), ..Default::default() })
    };
    // The event and the answer come in either order.
    let mut publish_and_read = |topic: &str, data: Vec<u8>| {
        call.send(&command("p", publish(topic, data)));
        let (mut published, mut seen) = (None, None);
        while published.is_none() || seen.is_none() {
            let Record { sub, record } = call.record();
            match record.unwrap() {
                Kind::Ok(ok) => published = Some(ok.published.unwrap().id),
                Kind::Event(event) => seen = Some((sub, event)),
                other => panic!("{other:?}"),
            }
        }
        let (sub, event) = seen.unwrap();
        assert_eq!(published.unwrap(), event.id);
        (sub, event)
    };
    for (topic, sub) in [("orders", "a"), ("chats", "")] {
        let (named, event) = publish_and_read(topic, b"1".to_vec());
        assert_eq!((named.as_str(), &*event.data), (sub, &b"1"[..]));
        let large = vec![7; 50_000];
        let (named, event) = publish_and_read(topic, large.clone());
        assert_eq!((named.as_str(), &*event.data), (sub, &*large));
    }
    let gone = Do::Unsubscribe(Unsubscribe { sub: "a".to_owned() });
    assert_eq!(answer(&mut call, "u", gone.clone()), 0);
    assert_eq!(answer(&mut call, "u", gone), 5);
    gateway.publish("orders", "not for this session");
    gateway.publish("chats", "text");
    assert_eq!(&*call.event().data, b"text");
    // The streams go on when the client sends no more.
    call.finish();
    gateway.publish("chats", "last");
    assert_eq!(&*call.event().data, b"last");
}

#[test]
fn wrong_commands_are_refused_and_the_session_goes_on() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    let mut call = session(&gateway, &[]);
    assert_eq!(answer(&mut call, "1", subscribe("a", "orders")), 0);
    call.record();
    for (what, code) in [
        (subscribe("a", "orders"), 3),
        (subscribe("b", "a b"), 3),
        (subscribe("b", "chats"), 5),
        (subscribe(&"n".repeat(129), "orders"), 3),
        (Do::Renew(Renew { token: "x".to_owned() }), 5),
        (Do::Presence(PresenceRequest { topic: "chats".to_owned() }), 5),
        (Do::Publish(PublishRequest { topic: "orders".to_owned(), ..Default::default() }), 3),
    ] {
        assert_eq!(answer(&mut call, "x", what.clone()), code, "{what:?}");
    }
    call.send(&Command { r#ref: "none".to_owned(), command: None });
    assert!(matches!(call.record().record, Some(Kind::Error(error)) if error.code == 3));
    call.send(&Command { r#ref: "r".repeat(129), command: None });
    assert!(matches!(call.record().record, Some(Kind::Error(error)) if error.r#ref.is_empty()));
    for n in 1..32 {
        let sub = n.to_string();
        assert_eq!(answer(&mut call, &sub, subscribe(&sub, "orders")), 0);
        call.record();
    }
    assert_eq!(answer(&mut call, "x", subscribe("32", "orders")), 8);
    gateway.publish("orders", "to all");
    let subs: BTreeMap<_, _> =
        (0..32).map(|_| call.record()).map(|it| (it.sub, it.record)).collect();
    assert_eq!(subs.len(), 32);
    let large = PublishRequest { data: vec![0; 70_000].into(), ..Default::default() };
    call.send(&command("x", Do::Publish(large)));
    assert_eq!(call.end().1.0, 8);
    gateway.until_metric("stream_events_streams", 0.0);
}

#[test]
fn a_client_that_sends_too_many_commands_is_ended() {
    let gateway = Gateway::dev(&[]);
    let mut call = session(&gateway, &[]);
    for _ in 0..300 {
        call.send(&command("x", Do::Unsubscribe(Unsubscribe::default())));
    }
    assert_eq!(call.end().1.0, 8);
}

#[test]
fn a_session_without_streams_ends_with_the_client() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let mut call = session(&gateway, &[]);
    let kept: Record = call.next().unwrap();
    assert!(matches!(kept.record, Some(Kind::KeepAlive(_))), "{kept:?}");
    call.finish();
    let (last, status) = call.end();
    assert_eq!((last, status.0), (None, 0));
    let aged = Gateway::dev(&[("stream-age-max", "1 s")]);
    let mut call = session(&aged, &[]);
    let (last, status) = call.end();
    assert!(matches!(last, Some(Kind::End(end)) if end.reason == "max-age"));
    assert_eq!(status.0, 14);
    assert!(call.trailers.contains_key("grpc-retry-pushback-ms"));
}

#[test]
fn a_session_is_renewed_and_ends_with_its_token() {
    let keys = KeyServer::start();
    let gateway = with_tokens(&keys, &[]);
    let token = |topics: &[&str], seconds: u64| {
        let mut claims = claims(topics);
        claims["exp"] = json!(now() + seconds);
        sign(&claims)
    };
    let short = bearer(&token(&["orders"], 3));
    let mut ended = session(&gateway, &[("authorization", &short)]);
    let mut call = session(&gateway, &[("authorization", &short)]);
    assert_eq!(answer(&mut call, "1", subscribe("", "chats")), 7);
    assert_eq!(answer(&mut call, "2", subscribe("", "orders")), 0);
    assert!(matches!(call.record().record, Some(Kind::Open(_))));
    let renew = |token: String| Do::Renew(Renew { token });
    assert_eq!(answer(&mut call, "3", renew(token(&["chats"], 60))), 7);
    assert_eq!(answer(&mut call, "4", renew("x".to_owned())), 16);
    call.send(&command("5", renew(token(&["orders"], 6))));
    let mut renewed = false;
    while !renewed {
        if let Some(Kind::Ok(ok)) = call.record().record {
            assert!((4..=6).contains(&ok.auth.unwrap().expires_in));
            renewed = true;
        }
    }
    let (last, status) = ended.end();
    assert!(matches!(last, Some(Kind::End(end)) if end.reason == "expired"));
    assert_eq!(status.0, 16);
    gateway.publish("orders", "after the first token");
    assert_eq!(&*call.event().data, b"after the first token");
    let (last, status) = call.end();
    assert!(matches!(last, Some(Kind::End(end)) if end.reason == "expired"));
    assert_eq!(status.0, 16);
}

#[test]
fn the_presence_command_returns_the_members() {
    let gateway = Gateway::dev(&[]);
    let mut call = session(&gateway, &[]);
    let request = SubscribeRequest {
        topics: vec!["lobby".to_owned()],
        presence: "on".to_owned(),
        name: "ann".to_owned(),
        ..Default::default()
    };
    let sub = "s".to_owned();
    let what = Do::Subscribe(Subscribe { sub, request: Some(request) });
    assert_eq!(answer(&mut call, "1", what), 0);
    assert!(matches!(call.record().record, Some(Kind::Open(_))));
    let listed = call.record();
    assert!(matches!(listed.record, Some(Kind::Presence(_))), "{listed:?}");
    call.send(&command("2", Do::Presence(PresenceRequest { topic: "lobby".to_owned() })));
    let Some(Kind::Ok(ok)) = call.record().record else { panic!() };
    let members = ok.members.unwrap();
    assert_eq!((members.members[0].subject.as_str(), members.members[0].streams), ("ann", 1));
}

#[test]
fn a_session_that_its_client_resets_ends_at_once() {
    let gateway = Gateway::dev(&[("streams-per-address", "2")]);
    let mut call = session(&gateway, &[]);
    for sub in ["a", "b"] {
        assert_eq!(answer(&mut call, sub, subscribe(sub, "orders")), 0);
        call.record();
    }
    gateway.until_metric("stream_events_streams", 2.0);
    call.reset();
    gateway.until_metric("stream_events_streams", 0.0);
    // Its address may then open as many streams again.
    let mut call = session(&gateway, &[]);
    for sub in ["a", "b"] {
        let mut status = || answer(&mut call, sub, subscribe(sub, "orders"));
        eventually("the stream is admitted", || (status() == 0).then_some(()));
        call.record();
    }
}

#[test]
fn a_session_without_streams_counts_as_a_stream_of_its_address() {
    let gateway = Gateway::dev(&[("streams-per-address", "1")]);
    let refused = || {
        let call = session(&gateway, &[]);
        let is_refused = call.head.contains_key("grpc-status");
        if is_refused {
            assert_eq!(call.status().0, 8, "{:?}", call.status());
            assert!(call.head.contains_key("grpc-retry-pushback-ms"));
        }
        is_refused
    };
    let mut call = session(&gateway, &[]);
    assert!(refused());
    // The first stream takes the place of the session, also if a stream was refused before.
    assert_eq!(answer(&mut call, "1", subscribe("a", "a b")), 3);
    assert!(refused());
    assert_eq!(answer(&mut call, "2", subscribe("a", "orders")), 0);
    call.record();
    assert!(refused());
    assert_eq!(answer(&mut call, "3", subscribe("b", "orders")), 8);
    let gone = Do::Unsubscribe(Unsubscribe { sub: "a".to_owned() });
    assert_eq!(answer(&mut call, "4", gone), 0);
    assert!(refused());
    assert_eq!(answer(&mut call, "5", subscribe("a", "orders")), 0);
    call.record();
    call.reset();
    let idle = eventually("the session is admitted", || {
        let call = session(&gateway, &[]);
        (!call.head.contains_key("grpc-status")).then_some(call)
    });
    assert!(refused());
    idle.reset();
    eventually("the reset session returns its permit", || (!refused()).then_some(()));
}

#[test]
fn a_session_is_drained_at_sigterm() {
    let (mut process, address) = serve(&["--drain-timeout", "2 s"]);
    let begin = || Call::begin_at(address, &format!("{SERVICE}Session"), &[]).answered();
    let (mut call, mut idle) = (begin(), begin());
    for sub in ["a", "b"] {
        assert_eq!(answer(&mut call, sub, subscribe(sub, "orders")), 0);
        assert!(matches!(call.record().record, Some(Kind::Open(_))));
    }
    process.signal(Signal::TERM);
    let mut ended = Vec::new();
    while let Some(Record { sub, record }) = call.next() {
        match record.unwrap() {
            Kind::End(end) => {
                assert_eq!((end.reason.as_str(), 0 < end.retry_ms), ("draining", true));
                ended.push(sub);
            }
            Kind::Checkpoint(_) | Kind::KeepAlive(_) => {}
            other => panic!("{other:?}"),
        }
    }
    ended.sort();
    assert_eq!(ended, ["a", "b"]);
    let (last, status) = idle.end();
    assert!(matches!(last, Some(Kind::End(end)) if end.reason == "draining"));
    for (call, code) in [(&call, call.status().0), (&idle, status.0)] {
        assert_eq!(code, 14);
        assert!(call.trailers.contains_key("grpc-retry-pushback-ms"), "{:?}", call.trailers);
    }
    assert_eq!(process.wait().0.code(), Some(0));
}
