//! Polls: `mode=poll` of `GET /events`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    auth::reader,
    support::{
        eventually,
        gateway::{Gateway, message},
        http1::Answer,
        jwks::{KeyServer, sign},
        reader::{BY_GATEWAY, CASES, Case},
        redis::RedisServer,
    },
};

/// Polls, and expects a page.
pub fn poll(gateway: &Gateway, query: &str) -> Value {
    let answer = gateway.get(&format!("/events?mode=poll{query}"), &[]);
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

pub fn data(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["data"].as_str().unwrap().to_owned()).collect()
}

pub fn next(page: &Value) -> &str {
    page["next"].as_str().unwrap()
}

#[test]
fn pages_follow_each_other_over_all_transports() {
    for cases in BY_GATEWAY {
        let gateway = cases[0].gateway(&[]);
        let begin = poll(&gateway, "");
        let id = next(&begin).to_owned();
        assert_eq!(begin, json!({ "events": [], "next": id, "gap": null, "more": false }));
        for n in 0..7 {
            gateway.publish(["orders", "parcels"][n % 2], format!("event {n}"));
        }
        for case in cases.iter().filter(|case| case.can_poll()) {
            let poll = |query: &str| -> Value {
                let mut answer = case.connect(&gateway, &format!("?mode=poll{query}"), &[]);
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(answer.header("incremental"), None);
                serde_json::from_slice(&answer.body()).unwrap()
            };
            let (mut id, mut seen, mut mores) = (id.clone(), Vec::new(), Vec::new());
            for _ in 0..3 {
                let page = poll(&format!("&limit=3&last_event_id={id}"));
                seen.extend(data(&page));
                mores.push(page["more"].as_bool().unwrap());
                next(&page).clone_into(&mut id);
            }
            assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6].map(|n| format!("event {n}")));
            assert_eq!(mores, [true, true, false]);
            assert_eq!(data(&poll(&format!("&last_event_id={id}"))), [""; 0]);
            let head = poll("&limit=0&since=1h");
            assert_eq!(head, json!({ "events": [], "next": id, "gap": null, "more": false }));
        }
    }
    // A poll is over when it is answered.
    let gateway = Gateway::dev(&[]);
    poll(&gateway, "");
    gateway.until_metric("stream_events_streams", 0.0);
    gateway.until_metric("stream_events_streams_ended_total{reason=\"poll\"}", 1.0);
}

#[test]
fn a_page_has_the_objects_of_its_format() {
    let gateway = Gateway::dev(&[]);
    let mut source = gateway.events("?format=message");
    let mut cloud_events = gateway.events("?format=cloudevents");
    let mut published = message("{\"a\":\n1}", "7");
    published["attributes"] = json!({ "event": "made" });
    gateway.push("orders", &published);
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(poll(&gateway, "&since=1h")["events"], json!([parsed(&source.next().data)]));
    let page = poll(&gateway, "&since=1h&format=cloudevents");
    assert_eq!(page["events"], json!([parsed(&cloud_events.next().data)]));
    let by_accept = gateway.get("/events?since=1h", &[("Accept", "application/json")]);
    assert_eq!(by_accept.json()["events"], poll(&gateway, "&since=1h")["events"]);
}

#[test]
fn a_gap_comes_once_and_before_its_events() {
    let gateway = Gateway::dev(&[("ring-events", "2")]);
    let mut source = gateway.events("");
    for n in 0..6 {
        gateway.publish("orders", format!("event {n}"));
    }
    let ids: Vec<_> = (0..6).map(|_| source.next().id).collect();
    let page = poll(&gateway, &format!("&limit=1&last_event_id={}", ids[0]));
    assert_eq!(
        page["gap"],
        json!({ "reason": "evicted", "topics": ["orders"], "after": ids[0], "upto": ids[3] })
    );
    assert_eq!((data(&page), next(&page)), (vec!["event 4".to_owned()], ids[4].as_str()));
    let page = poll(&gateway, &format!("&last_event_id={}", ids[4]));
    assert_eq!((data(&page), &page["gap"]), (vec!["event 5".to_owned()], &Value::Null));
    // A gap without events ends a wait at once, and the next poll is after it.
    let start = Instant::now();
    let page = poll(&gateway, "&wait=20s&topic=parcels&last_event_id=1-1");
    assert_eq!((&page["gap"]["reason"], data(&page).len()), (&json!("restart"), 0));
    assert!(start.elapsed() < Duration::from_secs(10));
    let page = poll(&gateway, &format!("&topic=parcels&last_event_id={}", next(&page)));
    assert_eq!(page["gap"], Value::Null);
}

#[test]
fn large_events_and_pages_are_whole() {
    let gateway = Gateway::dev(&[]);
    let begin = next(&poll(&gateway, "&limit=0")).to_owned();
    let texts: Vec<_> = (0..40)
        .map(|n| format!("{n} {}", "x".repeat(if n == 5 { 3 << 20 } else { 60_000 })))
        .collect();
    for text in &texts {
        gateway.publish("orders", text);
    }
    let (mut id, mut seen, mut pages) = (begin, Vec::new(), 0);
    loop {
        let page = poll(&gateway, &format!("&limit=1000&last_event_id={id}"));
        next(&page).clone_into(&mut id);
        seen.extend(data(&page));
        pages += 1;
        if page["more"] == json!(false) {
            break;
        }
    }
    assert!(seen == texts);
    assert!((2..10).contains(&pages), "a page has about a megabyte: {pages} pages");
}

#[test]
fn a_long_poll_waits_for_an_event_and_no_longer() {
    for case in CASES.into_iter().filter(Case::can_poll) {
        let gateway = case.gateway(&[]);
        let begin = next(&poll(&gateway, "&limit=0")).to_owned();
        let query = format!("?mode=poll&wait=20s&topic=orders&last_event_id={begin}");
        let page = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| case.connect(&gateway, &query, &[]).body());
            gateway.until_metric("stream_events_streams", 1.0);
            gateway.publish("parcels", "of another topic");
            let start = Instant::now();
            gateway.publish("orders", "event 1");
            let page = waiting.join().unwrap();
            assert!(start.elapsed() < Duration::from_secs(10));
            serde_json::from_slice::<Value>(&page).unwrap()
        });
        assert_eq!(data(&page), ["event 1"]);
        let start = Instant::now();
        let page = poll(&gateway, &format!("&wait=1s&last_event_id={}", next(&page)));
        assert_eq!((data(&page).len(), &page["more"]), (0, &json!(false)));
        assert!(Duration::from_millis(900) < start.elapsed());
    }
}

#[test]
fn a_long_poll_is_answered_when_the_gateway_leaves() {
    let mut gateway = Gateway::dev(&[("drain-timeout", "5 s")]);
    let address = gateway.address;
    let query = "/events?mode=poll&wait=60s";
    let waiting =
        std::thread::spawn(move || crate::support::http1::request(address, "GET", query, &[], b""));
    gateway.until_metric("stream_events_streams", 1.0);
    let start = Instant::now();
    gateway.begin_stop();
    let answer = waiting.join().unwrap();
    assert_eq!((answer.status, &answer.json()["events"]), (200, &json!([])));
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// A poll that waits for the log is counted by what refuses it, and no second time by its answer.
#[test]
fn a_refused_poll_is_counted_once() {
    let refused = |gateway: &Gateway, reason: &str| {
        gateway.metric(&format!("stream_events_streams_refused_total{{reason=\"{reason}\"}}"))
    };
    let mut redis = RedisServer::stopped();
    let url = redis.url();
    let gateway = Gateway::dev(&[("backplane", &url), ("filters-max", "0")]);
    let unready = gateway.get("/events?mode=poll", &[]);
    assert_eq!((unready.status, refused(&gateway, "unready")), (503, 1.0));
    std::thread::scope(|scope| {
        let query = "/events?mode=poll&wait=20s&filter=attributes:a";
        let waiting = scope.spawn(|| gateway.get(query, &[]));
        redis.restart();
        let answer = waiting.join().unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
    });
    assert_eq!((refused(&gateway, "busy"), refused(&gateway, "unready")), (1.0, 1.0));
}

#[test]
fn an_answer_that_the_reader_has_is_not_sent_again() {
    let gateway = Gateway::dev(&[]);
    gateway.publish("orders", "event 1");
    let get = |query: &str, headers: &[(&str, &str)]| {
        gateway.get(&format!("/events?mode=poll{query}"), headers)
    };
    let first = get("&since=1h", &[]);
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert!(first.header("vary").unwrap().contains("Accept"));
    let begin = first.json()["next"].as_str().unwrap().to_owned();
    let after = format!("&last_event_id={begin}");
    let tag_after = get(&after, &[]).header("etag").unwrap().to_owned();
    assert_ne!(tag_after, tag);
    for known in [tag_after.clone(), format!("\"x\", W/{tag_after}"), "*".to_owned()] {
        let same = get(&after, &[("If-None-Match", &known)]);
        assert_eq!((same.status, same.body.len()), (304, 0), "{known}");
        assert_eq!(same.header("etag"), Some(&*tag_after));
    }
    gateway.publish("orders", "event 2");
    let changed = get(&after, &[("If-None-Match", &tag_after)]);
    assert_eq!((changed.status, data(&changed.json())), (200, vec!["event 2".to_owned()]));
    // The same position read from elsewhere is another answer.
    let end = changed.header("etag").unwrap().to_owned();
    let elsewhere = get("&since=1h", &[("If-None-Match", &end)]);
    assert_eq!(data(&elsewhere.json()), ["event 1", "event 2"]);
}

#[test]
fn tokens_decide_what_a_poll_returns_and_it_is_not_stored() {
    let keys = KeyServer::start();
    let gateway = reader::gateway(&keys, &[]);
    let bearer = reader::bearer(&sign(&reader::claims(&["orders"])));
    gateway.publish("orders", "event 1");
    gateway.publish("secret", "event 2");
    let get = |query: &str, headers: &[(&str, &str)]| {
        gateway.get(&format!("/events?mode=poll&since=1h{query}"), headers)
    };
    let answer = get("", &[("Authorization", &bearer)]);
    assert_eq!(data(&answer.json()), ["event 1"]);
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    for name in ["Accept", "Authorization", "Cookie"] {
        assert!(answer.header("vary").unwrap().contains(name), "{name}");
    }
    // The events of a page depend on the token, so no tag of another page hides them.
    assert_eq!(answer.header("etag"), None);
    let wider = reader::bearer(&sign(&reader::claims(&["orders", "secret"])));
    let known = [("Authorization", wider.as_str()), ("If-None-Match", "*")];
    assert_eq!(data(&get("", &known).json()), ["event 1", "event 2"]);
    assert_eq!(get("", &[]).status, 401);
    assert_eq!(get("&topic=secret", &[("Authorization", &bearer)]).status, 403);
    let ticket = gateway.post("/ticket", &[("Authorization", &bearer)], b"").json();
    let query = format!("&ticket={}", ticket["ticket"].as_str().unwrap());
    assert_eq!(data(&get(&query, &[]).json()), ["event 1"]);
    assert_eq!(get(&query, &[]).status, 401, "a ticket is for one poll");
}

#[test]
fn polls_have_limits() {
    let gateway = Gateway::dev(&[("subscribers-max", "1")]);
    for (query, named) in [
        ("mode=push", "mode"),
        ("mode=poll&limit=1001", "limit"),
        ("mode=poll&limit=-1", "limit"),
        ("mode=poll&wait=61s", "wait"),
        ("mode=poll&wait=soon", "wait"),
        ("mode=poll&format=data", "format"),
        ("limit=1", "add mode=poll"),
        ("wait=1s", "add mode=poll"),
    ] {
        let answer = gateway.get(&format!("/events?{query}"), &[]);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(named), "{query}: {}", answer.text());
    }
    let stream = gateway.events("");
    let refused = gateway.get("/events?mode=poll", &[]);
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    drop(stream);
    let gateway = Gateway::dev(&[("requests-per-address", "1")]);
    let polls = || gateway.get("/events?mode=poll", &[]);
    let refused = eventually("too many", || Some(polls()).filter(|poll| poll.status == 429));
    assert!(refused.header("retry-after").is_some());
    let head = |answer: &Answer| answer.header("content-type").map(str::to_owned);
    let gateway = Gateway::dev(&[]);
    let answer =
        crate::support::http1::request(gateway.address, "HEAD", "/events?mode=poll", &[], b"");
    assert_eq!((answer.status, head(&answer)), (200, Some("application/json".to_owned())));
}
