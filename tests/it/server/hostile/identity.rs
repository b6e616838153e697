//! Attacks with tokens, tickets and key sets.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::{
    auth::reader,
    support::{
        eventually,
        http1::{self, EventSource},
        jwks::{ACCOUNT, AUDIENCE, Behaviour, ISSUERS, KID, KeyServer, claims, sign},
        victim::Victim,
    },
};

/// Starts a gateway that requires push tokens of this key set, and no tokens from readers.
fn guarded(keys: &KeyServer) -> Victim {
    let mut victim = Victim::start(&[
        "--push-auth",
        "oidc",
        "--push-audience",
        AUDIENCE,
        "--push-service-account",
        ACCOUNT,
        "--push-jwks-url",
        &keys.url(),
        "--push-failures-per-address",
        "0",
        "--read-auth",
        "anonymous",
    ]);
    victim.authorization = Some(format!("Bearer {}", sign(&claims())));
    victim
}

/// Pushes with a token and returns the status.
fn push_with(victim: &Victim, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", &*authorization)];
    let body = br#"{"message":{"data":"eA=="}}"#;
    http1::request(victim.address, "POST", "/push/orders", &headers, body).status
}

/// Checks that pushes get 503, so that Pub/Sub keeps them, and streams are served while the key set
/// cannot be fetched, and that pushes are accepted once it can.
fn survives(name: &str, behaviour: Behaviour) {
    let keys = KeyServer::with(behaviour);
    let victim = guarded(&keys);
    eventually("the key set is requested", || (0 < keys.requests()).then_some(()));
    for _ in 0..20 {
        let mut stream = victim.events("");
        assert_eq!(stream.opened.take().unwrap().event, "stream-open", "{name}");
    }
    let ready = http1::request(victim.address, "GET", "/readyz", &[], b"").status;
    assert_eq!((push_with(&victim, &sign(&claims())), ready), (503, 503), "{name}");
    let under_attack = victim.memory_kib();
    assert!(under_attack < 64 * 1024, "{name}: {under_attack} KiB");
    keys.set(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=3600"));
    eventually("pushes are accepted", || {
        (push_with(&victim, &sign(&claims())) == 204).then_some(())
    });
    victim.calm().has_recovered();
}

#[test]
fn a_jwks_endpoint_that_hangs() {
    survives("hang", Behaviour::Hang);
}

#[test]
fn a_jwks_endpoint_that_answers_garbage() {
    let answer = |body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    };
    survives("no HTTP", Behaviour::Answer("\0\u{1}\u{2}garbage\r\n\r\n".to_owned()));
    survives("no JSON", Behaviour::Answer(answer("<html>it works</html>")));
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    survives("deep JSON", Behaviour::Answer(answer(&deep)));
    survives("no keys", Behaviour::Answer(answer("{\"keys\":[{\"kty\":\"oct\",\"k\":\"YQ\"}]}")));
}

#[test]
fn a_jwks_endpoint_that_answers_a_hundred_megabytes() {
    survives("without an end", Behaviour::Endless);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
    survives("in one answer", Behaviour::Answer(head.to_owned() + &" ".repeat(100_000_000)));
}

/// The gateway follows no redirect. One to the metadata server of Google's machines would let an
/// attacker use the gateway to read credentials.
#[test]
fn a_jwks_endpoint_that_redirects_to_the_metadata_server() {
    let metadata = KeyServer::start();
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = metadata.url();
        let answer =
            format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        survives(status, Behaviour::Answer(answer));
    }
    assert_eq!(metadata.requests(), 0);
}

/// Returns 10,000 claims.
fn many_claims() -> Value {
    let mut many = claims();
    for n in 0..10_000 {
        many[format!("claim-{n}")] = json!({ "n": n });
    }
    many
}

/// Returns claims with `depth` nested arrays at `key`.
fn deep_claims(key: &str, depth: usize) -> Value {
    let mut deep = claims();
    deep[key] = (0..depth).fold(json!(1), |inner, _| json!([inner]));
    deep
}

/// The tokens have valid signatures.
#[test]
fn tokens_with_ten_thousand_or_deeply_nested_claims() {
    let keys = KeyServer::start();
    let pushed = guarded(&keys).calm();
    let read = reader_victim(&keys).calm();
    let tokens =
        [sign(&many_claims()), sign(&deep_claims("deep", 500)), sign(&deep_claims("email", 100))];
    for token in &tokens {
        for (victim, line) in [(&pushed, "POST /push/orders"), (&read, "GET /events")] {
            let field = format!("Authorization: Bearer {token}\r\nContent-Length: 0");
            let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
            let text = victim.raw(head.as_bytes());
            // The token is accepted or refused. A head over the limit may be reset before its answer
            // is read.
            let answered = text.starts_with("HTTP/1.1 2") || text.starts_with("HTTP/1.1 4");
            assert!(answered || text.is_empty(), "{line}: {text}");
        }
    }
    pushed.has_recovered();
    read.has_recovered();
}

/// Starts a gateway whose readers need a token of this key set, and whose pushes need none.
fn reader_victim(keys: &KeyServer) -> Victim {
    let mut victim = Victim::start(&[
        "--push-auth",
        "none",
        "--read-auth",
        "jwt",
        "--read-jwks-url",
        &keys.url(),
    ]);
    victim.reader = Some(reader::bearer(&sign(&reader::claims(&["*"]))));
    eventually("ready", || {
        (http1::request(victim.address, "GET", "/readyz", &[], b"").status == 200).then_some(())
    });
    victim
}

/// Exactly one of several concurrent requests with the same ticket gets the stream.
#[test]
fn a_ticket_used_twice() {
    let keys = KeyServer::start();
    let victim = reader_victim(&keys).calm();
    let reader = victim.reader.clone().unwrap();
    for _ in 0..10 {
        let bought =
            http1::request(victim.address, "POST", "/ticket", &[("Authorization", &reader)], b"");
        let path = format!("/events?ticket={}", bought.json()["ticket"].as_str().unwrap());
        let at_once = Barrier::new(8);
        let statuses = std::thread::scope(|scope| {
            let use_it = || {
                at_once.wait();
                EventSource::connect(victim.address, &path, &[]).status
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(use_it)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let of = |status| statuses.iter().filter(|got| **got == status).count();
        assert_eq!((of(200), of(401)), (1, 7), "{statuses:?}");
    }
    victim.has_recovered();
}
