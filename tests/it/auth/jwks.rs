//! Cache of the issuer's keys, with servers that behave well and badly.

use std::time::Duration;

use stream_events::{
    auth::{
        jwks::{KeySource, KeyTimes, Keys, Lookup},
        push::ALGORITHMS,
    },
    telemetry::metrics::Metrics,
};

use crate::support::{
    PATIENCE,
    jwks::{ANOTHER, Behaviour, ISSUERS, KID, KeyServer},
};

const MILLIS: Duration = Duration::from_millis(1);

/// Returns times short enough that tests need not wait, and long enough that no fetch is due except
/// the one under test.
fn times() -> KeyTimes {
    KeyTimes {
        age_min: 20 * MILLIS,
        age_max: Duration::from_secs(3600),
        cool_down: Duration::from_secs(3600),
        retry: 5 * MILLIS,
        stale_max: Duration::from_secs(3600),
        fetch_max: 300 * MILLIS,
    }
}

/// Starts a cache of the keys of `server`.
fn start(server: &KeyServer, times: KeyTimes) -> Keys {
    Keys::start(source(server), times).unwrap()
}

/// Returns a source with the URL of `server`.
pub fn source(server: &KeyServer) -> KeySource {
    let fetches = Metrics::new().unwrap().key_fetches;
    KeySource { url: server.url(), token_kind: "push tokens", algorithms: ALGORITHMS, fetches }
}

fn known(lookup: &Lookup) -> bool {
    matches!(lookup, Lookup::Known(_))
}

/// Waits for `count` requests without blocking the runtime of the cache's task.
async fn until_requests(server: &KeyServer, count: usize) {
    let requested = async {
        while server.requests() < count {
            tokio::time::sleep(MILLIS).await;
        }
    };
    tokio::time::timeout(PATIENCE, requested).await.expect("the requests never came");
}

#[tokio::test]
async fn concurrent_lookups_cause_one_fetch() {
    let server = KeyServer::start();
    let keys = start(&server, times());
    let mut lookups = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let keys = keys.clone();
        lookups.spawn(async move { known(&keys.find(KID).await) });
    }
    assert!(lookups.join_all().await.into_iter().all(|known| known));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn key_set_is_refreshed_before_it_is_too_old() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=4"));
    let begin = tokio::time::Instant::now();
    let keys = start(&server, times());
    assert!(known(&keys.find(KID).await));
    assert_eq!(server.requests(), 1);
    until_requests(&server, 2).await;
    assert!(begin.elapsed() < Duration::from_secs(4), "before the keys are too old");
    assert!(Duration::from_millis(2_800) <= begin.elapsed(), "not at once");
}

#[tokio::test]
async fn max_age_and_age_determine_the_next_fetch() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=1\r\nAge: 1"));
    let keys = start(&server, times());
    assert!(known(&keys.find(KID).await));
    until_requests(&server, 3).await;
    server.set(Behaviour::keys(&[ISSUERS.jwk(KID)], "public, max-age=3000, must-revalidate"));
    // One fetch receives the long max-age, and no other follows.
    until_requests(&server, 1).await;
    tokio::time::sleep(100 * MILLIS).await;
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn unknown_kids_cause_one_fetch_per_cool_down() {
    let server = KeyServer::start();
    let cool_down = 300 * MILLIS;
    let keys = start(&server, KeyTimes { cool_down, ..times() });
    assert!(known(&keys.find(KID).await));
    for _ in 0..100 {
        assert!(matches!(keys.find("invented").await, Lookup::Unknown));
    }
    assert_eq!(server.requests(), 1, "within the cool-down");
    // The issuer adds a key. After the cool-down the first lookup finds it.
    server.set(Behaviour::keys(&[ISSUERS.jwk(KID), ANOTHER.jwk("key-2")], "max-age=3600"));
    tokio::time::sleep(cool_down + 20 * MILLIS).await;
    assert!(known(&keys.find("key-2").await));
    assert_eq!(server.requests(), 1);
    for _ in 0..100 {
        assert!(matches!(keys.find("invented").await, Lookup::Unknown));
    }
    assert_eq!(server.requests(), 1);
}

/// A lookup at the very end of the cool-down, before the task of the cache has noticed the end,
/// causes a fetch.
#[tokio::test]
async fn lookup_at_the_end_of_the_cool_down_causes_a_fetch() {
    let server = KeyServer::start();
    let cool_down = 100 * MILLIS;
    let keys = start(&server, KeyTimes { cool_down, ..times() });
    assert!(known(&keys.find(KID).await));
    server.set(Behaviour::keys(&[ANOTHER.jwk("key-2")], "max-age=3600"));
    // Blocks the only thread of the runtime, so that the timer of the task is late.
    std::thread::sleep(cool_down + 5 * MILLIS);
    let found = tokio::time::timeout(Duration::from_secs(10), keys.find("key-2")).await;
    assert!(found.is_ok_and(|lookup| known(&lookup)));
}

#[tokio::test]
async fn known_keys_are_used_while_a_fetch_hangs() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=0"));
    let keys = start(&server, KeyTimes { fetch_max: Duration::from_secs(60), ..times() });
    assert!(known(&keys.find(KID).await));
    server.set(Behaviour::Hang);
    until_requests(&server, 1).await;
    let find = tokio::time::timeout(Duration::from_secs(5), keys.find(KID)).await;
    assert!(find.is_ok_and(|lookup| known(&lookup)), "the lookup waited for the fetch");
}

#[tokio::test]
async fn known_keys_are_used_for_stale_max_while_the_issuer_is_down() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=0"));
    let keys = start(&server, KeyTimes { stale_max: 500 * MILLIS, ..times() });
    assert!(known(&keys.find(KID).await));
    server.set(Behaviour::Answer("HTTP/1.1 500 Oops\r\n\r\n".to_owned()));
    until_requests(&server, 3).await;
    assert!(known(&keys.find(KID).await));
    tokio::time::sleep(600 * MILLIS).await;
    assert!(matches!(keys.find(KID).await, Lookup::Unavailable));
    assert!(!keys.is_available());
}

#[tokio::test]
async fn invalid_answers_of_the_issuer_give_no_keys() {
    let weak = r#"{"keys":[{"kty":"RSA","kid":"weak","n":"AQAB","e":"AQAB"}]}"#;
    let other = r#"{"keys":[{"kty":"oct","kid":"key-1","k":"c2VjcmV0"}]}"#;
    let ok = |body: &str| {
        Behaviour::Answer(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"))
    };
    // Target of a redirect, as the metadata server could be. It must get no request, although its
    // keys are valid.
    let elsewhere = KeyServer::start();
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    for (name, behaviour) in [
        ("hangs", Behaviour::Hang),
        ("never ends", Behaviour::Endless),
        ("answers garbage", ok("garbage")),
        ("answers an empty set", ok("{\"keys\":[]}")),
        ("answers a weak key", ok(weak)),
        ("answers a shared secret", ok(other)),
        ("answers 500", Behaviour::Answer("HTTP/1.1 500 Oops\r\n\r\n".to_owned())),
        ("redirects", Behaviour::Answer(redirect)),
    ] {
        let server = KeyServer::with(behaviour);
        let keys = start(&server, times());
        assert!(matches!(keys.find(KID).await, Lookup::Unavailable), "{name}");
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn key_of_an_unknown_type_is_skipped() {
    let strange = serde_json::json!({ "kty": "PQC", "kid": "new", "alg": "ML-DSA-44" });
    let server = KeyServer::with(Behaviour::keys(&[strange, ISSUERS.jwk(KID)], "max-age=60"));
    let keys = start(&server, times());
    assert!(known(&keys.find(KID).await));
    assert!(matches!(keys.find("new").await, Lookup::Unknown));
}

#[tokio::test]
async fn nothing_is_fetched_after_the_last_handle_is_dropped() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=0"));
    let keys = start(&server, times());
    until_requests(&server, 2).await;
    drop(keys);
    tokio::time::sleep(50 * MILLIS).await;
    let after = server.requests();
    tokio::time::sleep(150 * MILLIS).await;
    assert_eq!(server.requests(), after);
}
