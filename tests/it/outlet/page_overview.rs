//! The page for people without a browser: who gets its files, and `GET /page/overview`.

use serde_json::{Value, json};

use crate::{
    auth::reader::{bearer, claims, gateway as of_tokens},
    support::{
        eventually,
        gateway::Gateway,
        jwks::{KeyServer, sign},
        reader::BY_GATEWAY,
    },
};

const FILES: [&str; 4] = ["/", "/page/page.js", "/page/page.css", "/page/icon.svg"];

fn overview(gateway: &Gateway, headers: &[(&str, &str)]) -> Value {
    let answer = gateway.get("/page/overview", headers);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

#[test]
fn a_browser_loads_nothing_from_elsewhere() {
    let gateway = Gateway::dev(&[]);
    for path in FILES {
        let answer = gateway.get(path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("form-action 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    for path in ["/page/mod.rs", "/page/", "/page/..%2Fmod.rs", "/page.js"] {
        assert_eq!(gateway.get(path, &[]).status, 404, "{path}");
    }
}

#[test]
fn the_page_is_there_only_with_its_flag() {
    let open = [("push-auth", "none"), ("read-auth", "anonymous")];
    let on = Gateway::serve(&[&open[..], &[("page", "on")]].concat());
    for (gateway, status) in
        [(Gateway::serve(&open), 404), (Gateway::dev(&[("page", "off")]), 404), (on, 200)]
    {
        for path in FILES.iter().chain(&["/page/overview"]) {
            assert_eq!(gateway.get(path, &[]).status, status, "{path}");
        }
    }
}

#[test]
fn the_form_to_publish_is_for_dev() {
    let open = [("push-auth", "none"), ("read-auth", "anonymous"), ("publish-auth", "none")];
    let serve = Gateway::serve(&[&open[..], &[("page", "on")]].concat());
    let off = Gateway::dev(&[("publish-auth", "off")]);
    for (gateway, can_publish) in [(Gateway::dev(&[]), true), (off, false), (serve, false)] {
        assert_eq!(overview(&gateway, &[])["can_publish"], can_publish);
    }
}

#[test]
fn topics_have_counts_and_outlets_their_streams() {
    let gateway = Gateway::dev(&[("ring-events", "2")]);
    for _ in 0..3 {
        gateway.publish("orders", "x");
    }
    gateway.publish("parcels", "x");
    let seen = overview(&gateway, &[]);
    let topics = json!([{ "topic": "orders", "stored": 3 }, { "topic": "parcels", "stored": 1 }]);
    assert_eq!((&seen["topics"], &seen["topics_more"]), (&topics, &json!(0)));
    assert_eq!(seen["streams"], json!({}));
    let time_ms = seen["time_ms"].as_u64().unwrap();
    assert!(time_ms.abs_diff(stream_events::clock::now_ms()) < 60_000, "{time_ms}");
    // Streams of each format and transport. The streams of one outlet are counted together.
    let streams: Vec<_> =
        BY_GATEWAY[0].iter().map(|case| case.open_at(gateway.address, "?topic=orders")).collect();
    let counts = || overview(&gateway, &[])["streams"].clone();
    assert_eq!(counts(), json!({ "sse": 2, "ndjson": 2, "websocket": 2, "grpc": 2 }));
    drop(streams);
    eventually("the streams have ended", || (counts() == json!({})).then_some(()));
}

#[test]
fn of_many_topics_the_newest_are_listed() {
    let gateway = Gateway::dev(&[]);
    for n in 0..60 {
        gateway.publish(&format!("topic-{n}"), "x");
    }
    gateway.publish("topic-0", "x");
    let seen = overview(&gateway, &[]);
    let names: Vec<_> =
        seen["topics"].as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
    assert_eq!((names.len(), &seen["topics_more"]), (50, &json!(10)));
    assert!(names.contains(&"topic-0") && !names.contains(&"topic-1"), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn a_reader_sees_the_topics_of_its_token() {
    let keys = KeyServer::start();
    let gateway = of_tokens(&keys, &[("page", "on")]);
    for topic in ["orders", "acme.users", "secret"] {
        gateway.publish(topic, "x");
    }
    let ask = |claims: &Value| {
        overview(&gateway, &[("Authorization", &bearer(&sign(claims)))])["topics"].clone()
    };
    assert_eq!(
        ask(&claims(&["orders", "acme.*", "unknown"])),
        json!([{ "topic": "acme.users", "stored": 1 }, { "topic": "orders", "stored": 1 }])
    );
    assert_eq!(ask(&claims(&[])), json!([]));
    // With a filter there is no count: it would tell how many events the filter hides.
    let mut filtered = claims(&["orders"]);
    filtered["filter"] = json!("attributes.customer = \"c1\"");
    assert_eq!(ask(&filtered), json!([{ "topic": "orders" }]));
    assert_eq!(gateway.get("/page/overview", &[]).status, 401);
    let forged = [("Authorization", "Bearer x.y.z")];
    assert_eq!(gateway.get("/page/overview", &forged).status, 401);
    // Anyone gets the files: they hold no data, and a browser sends no token when it loads them.
    assert_eq!(gateway.get("/", &[]).status, 200);
}
