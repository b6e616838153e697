//! Readers' tokens: which are let in, what they grant, and when they end.

use std::{fs, process::Command, thread};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use stream_events::clock;

use crate::support::{
    eventually,
    gateway::Gateway,
    http1::EventSource,
    jwks::{ANOTHER, Behaviour, ISSUERS, KID, KeyServer, sign, sign_with},
    process::{output, stream_events},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub fn now() -> u64 {
    clock::now_ms() / 1000
}

pub fn claims(topics: &[&str]) -> Value {
    json!({ "sub": "alice", "exp": now() + 3600, "topics": topics })
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A gateway for tokens of `keys`, in which anyone may push.
pub fn gateway(keys: &KeyServer, flags: &[(&'static str, &str)]) -> Gateway {
    let url = keys.url();
    let all = [("push-auth", "none"), ("read-auth", "jwt"), ("read-jwks-url", &*url)];
    let gateway = Gateway::serve(&[&all[..], flags].concat());
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    gateway
}

fn status(gateway: &Gateway, query: &str, token: &str) -> u16 {
    let bearer = bearer(token);
    gateway.get_head(&format!("/events{query}"), &[("Authorization", &bearer)]).0
}

pub fn open(gateway: &Gateway, query: &str, token: &str) -> EventSource {
    gateway.events_with(query, &[("Authorization", &bearer(token))])
}

#[test]
fn a_token_grants_the_topics_that_it_names() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let token = sign(&claims(&["orders", "acme.*"]));
    let mut all = open(&gateway, "", &token);
    let mut one = open(&gateway, "?topic=acme.users", &token);
    for topic in ["orders", "orders2", "acme.users", "acmes", "acme.x.y", "other.acme.z"] {
        gateway.publish(topic, topic);
    }
    assert_eq!(all.take(3), ["orders", "acme.users", "acme.x.y"]);
    assert_eq!(one.next().data, "acme.users");
    // And on replay.
    let mut again = open(&gateway, "?since=1h", &token);
    assert_eq!(again.take(3), ["orders", "acme.users", "acme.x.y"]);
    for (query, expected) in [
        ("?topic=orders", 200),
        ("?topic=acme.anything", 200),
        ("?topic=orders2", 403),
        ("?topic=acme", 403),
        ("?topic=acmes.x", 403),
        ("?topic=orders,other", 403),
        ("?topic=acme.*", 200),
        ("?topic=acme.x.*,orders", 200),
        ("?topic=orders.*", 403),
        ("?topic=acm.*", 403),
        ("?topic=acme.*,acmes.*", 403),
        ("?topic=*", 403),
    ] {
        assert_eq!(status(&gateway, query, &token), expected, "{query}");
    }
    let everything = sign(&claims(&["*"]));
    assert_eq!(open(&gateway, "?since=1h", &everything).take(6).len(), 6);
    let nothing = sign(&claims(&[]));
    let mut silent = open(&gateway, "", &nothing);
    gateway.publish("orders", "not for all");
    let mut listening = open(&gateway, "", &token);
    gateway.publish("orders", "more");
    assert_eq!(listening.next().data, "more");
    silent.set_nonblocking();
    assert!(silent.is_silent(), "a token without topics sees nothing");
}

#[test]
fn a_token_comes_in_the_header_or_in_the_cookie_and_in_no_url() {
    let keys = KeyServer::start();
    let with_cookie = gateway(&keys, &[("read-cookie", "session")]);
    let token = sign(&claims(&["*"]));
    let get = |headers: &[(&str, &str)], query: &str| {
        with_cookie.get_head(&format!("/events{query}"), headers).0
    };
    let cookie = |text: &str| get(&[("Cookie", text)], "");
    assert_eq!(cookie(&format!("a=b; session={token}; c=d")), 200);
    assert_eq!(cookie(&format!("xsession={token}")), 401);
    assert_eq!(cookie("session="), 401);
    // A header that is wrong is not made up for by a cookie that is right.
    let both = [("Authorization", "Bearer x"), ("Cookie", &format!("session={token}"))];
    assert_eq!(get(&both, ""), 401);
    for query in ["?token=", "?access_token=", "?jwt="] {
        assert_eq!(get(&[], &format!("{query}{token}")), 400, "{query}");
    }
    let plain = gateway(&keys, &[]);
    assert_eq!(plain.get_head("/events", &[("Cookie", &format!("session={token}"))]).0, 401);
    let refused = plain.get("/events", &[]);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn forged_and_spoilt_tokens_are_refused() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("read-audience", "events"), ("read-issuer", "https://idp")]);
    let good = || {
        json!({ "sub": "alice", "aud": "events", "iss": "https://idp", "exp": now() + 60,
                "topics": ["*"] })
    };
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        sign(&claims)
    };
    let hmac = |algorithm| {
        let mut header = Header::new(algorithm);
        header.kid = Some(KID.to_owned());
        encode(&header, &good(), &EncodingKey::from_secret(ISSUERS.pem.as_bytes())).unwrap()
    };
    let none = {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let header = BASE64.encode(format!(r#"{{"alg":"none","kid":"{KID}"}}"#));
        format!("{header}.{}.", BASE64.encode(good().to_string()))
    };
    let nested = (0..300).fold(json!("x"), |inner, _| json!([inner]));
    let many: Value = (0..10_000).map(|n| (format!("c{n}"), json!(n))).collect();
    assert_eq!(status(&gateway, "", &sign(&good())), 200);
    assert_eq!(status(&gateway, "", &with("aud", json!(["x", "events"]))), 200);
    for (what, token, expected) in [
        ("another key", sign_with(&ANOTHER, KID, &good()), 401),
        ("an unknown kid", sign_with(&ISSUERS, "invented", &good()), 401),
        ("the public key as a secret", hmac(Algorithm::HS256), 401),
        ("no signature", none, 401),
        ("cut", sign(&good())[..200].to_owned(), 401),
        ("no JWT", "x.y.z".to_owned(), 401),
        ("expired", with("exp", json!(now() - 60)), 401),
        ("just expired", with("exp", json!(now() - 1)), 401),
        ("expires never", without("exp"), 401),
        ("expires at some text", with("exp", json!("soon")), 401),
        ("not valid yet", with("nbf", json!(now() + 600)), 401),
        ("another audience", with("aud", json!("other")), 401),
        ("no audience", without("aud"), 401),
        ("another issuer", with("iss", json!("https://other")), 401),
        ("no issuer", without("iss"), 401),
        ("no topics", without("topics"), 403),
        ("topics that are none", with("topics", json!(["a/b"])), 401),
        ("topics of another type", with("topics", json!({ "a": 1 })), 401),
        ("a number among topics", with("topics", json!(["orders", 1])), 401),
        ("a filter that is none", with("filter", json!("attributes.a = b")), 403),
        ("an empty filter", with("filter", json!("")), 403),
        ("a filter that is no text", with("filter", json!(null)), 403),
        // The head is too large before anyone looks at a token.
        ("very many claims", with("x", many), 431),
        ("many claims", with("x", json!("x".repeat(9_000))), 401),
        ("very deep claims", with("x", nested), 401),
    ] {
        assert_eq!(status(&gateway, "", &token), expected, "{what}");
    }
    assert_eq!(status(&gateway, "", &sign(&good())), 200);
}

#[test]
fn the_claim_for_topics_can_be_elsewhere_and_one_text() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[("read-topics-claim", "app.events.topics")]);
    let with = |topics: Value| {
        sign(&json!({ "exp": now() + 60, "app": { "events": { "topics": topics } } }))
    };
    assert_eq!(status(&gateway, "?topic=orders", &with(json!("orders"))), 200);
    assert_eq!(status(&gateway, "?topic=orders", &with(json!(["users"]))), 403);
    assert_eq!(status(&gateway, "", &sign(&claims(&["*"]))), 403, "it is not there");
}

/// The key decides on the algorithm.
#[test]
fn keys_of_other_kinds_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ec =
        |pair: &rcgen::KeyPair| EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(ed25519.serialize_pem().as_bytes()).unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    for (name, text, key, algorithm) in [
        ("p256", p256.public_key_pem(), ec(&p256), Algorithm::ES256),
        ("p384", p384.public_key_pem(), ec(&p384), Algorithm::ES384),
        ("ed25519", ed25519.public_key_pem(), ed, Algorithm::EdDSA),
        ("rsa", ISSUERS.pem.clone(), ISSUERS.private.clone(), Algorithm::RS256),
        ("secret", format!("{SECRET}\n"), secret, Algorithm::HS256),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &text).unwrap();
        let path = path.to_str().unwrap();
        let flags = [("push-auth", "none"), ("read-auth", "jwt"), ("read-key-file", path)];
        let gateway = Gateway::serve(&flags);
        let sign = |algorithm, key: &EncodingKey| {
            encode(&Header::new(algorithm), &claims(&["*"]), key).unwrap()
        };
        assert_eq!(status(&gateway, "", &sign(algorithm, &key)), 200, "{name}");
        // The file as a secret, whatever it is.
        let forged = EncodingKey::from_secret(text.as_bytes());
        assert_eq!(status(&gateway, "", &sign(Algorithm::HS256, &forged)), 401, "{name}");
        assert_eq!(status(&gateway, "", &sign(Algorithm::HS512, &forged)), 401, "{name}");
    }
}

#[test]
fn key_files_that_are_none_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let public = pair.public_key_pem();
    for (text, part) in [
        (pair.serialize_pem(), "private key"),
        ("too short".to_owned(), "32 are safe"),
        (public.replace('M', "!"), "no public key"),
        (json!({ "keys": [ISSUERS.jwk(KID)] }).to_string(), "--read-jwks-url"),
    ] {
        let path = folder.path().join("key");
        fs::write(&path, text).unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--push-auth", "none"];
        let jwt = ["--read-auth", "jwt", "--read-key-file", path.to_str().unwrap()];
        let (ok, text) = output(&mut stream_events(&[&arguments[..], &jwt].concat()));
        assert!(!ok && text.contains(part), "{text}");
    }
}

/// A pipe gives its bytes once, and a file may be gone when the gateway would read it again.
#[test]
fn a_key_file_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let write = |secret| {
        let path = path.clone();
        thread::spawn(move || fs::write(path, secret).unwrap())
    };
    let writer = write(SECRET);
    let flags = [("push-auth", "none"), ("read-auth", "jwt")];
    let key = [("read-key-file", path.to_str().unwrap())];
    let gateway = Gateway::serve(&[&flags[..], &key].concat());
    writer.join().unwrap();
    // Waits for a second reader of the pipe, which must not come.
    write("another secret of some 32 letters");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims(&["*"]), &key).unwrap();
    assert_eq!(status(&gateway, "", &token), 200);
}

/// A public key is one wherever in its file it stands. As a secret, anyone who has it could sign.
#[test]
fn a_public_key_is_never_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    for before in ["\n", "Bag Attributes\n    friendlyName: reader\n", "# our key\n\n"] {
        let file = format!("{before}{}", ISSUERS.pem);
        fs::write(&path, &file).unwrap();
        let flags = [("push-auth", "none"), ("read-auth", "jwt")];
        let key = [("read-key-file", path.to_str().unwrap())];
        let gateway = Gateway::serve(&[&flags[..], &key].concat());
        let secret = EncodingKey::from_secret(file.trim_end().as_bytes());
        let forged = encode(&Header::new(Algorithm::HS256), &claims(&["*"]), &secret).unwrap();
        assert_eq!(status(&gateway, "", &forged), 401, "{before:?}");
        assert_eq!(status(&gateway, "", &sign(&claims(&["*"]))), 200, "{before:?}");
    }
}

/// The reader is warned, may still be given events, and then the stream ends.
#[test]
fn a_stream_ends_with_its_token() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let token = sign(&json!({ "exp": now() + 3, "topics": ["*"] }));
    let mut source = open(&gateway, "", &token);
    let warned = source.next_raw().unwrap();
    assert_eq!(
        (warned.event.as_str(), warned.id.as_str()),
        ("stream-auth", source.last_event_id())
    );
    let left = serde_json::from_str::<Value>(&warned.data).unwrap()["expires_in"].as_u64().unwrap();
    assert!((0..=3).contains(&left), "{left}");
    gateway.publish("orders", "in time");
    assert_eq!(source.next().data, "in time");
    let end = source.next_raw().unwrap();
    assert_eq!((end.event.as_str(), end.data.as_str()), ("stream-end", r#"{"reason":"expired"}"#));
    assert!(source.next_raw().is_none());
    assert!((now() + 1) * 1000 >= clock::now_ms());
    gateway.until_metric("stream_events_streams_ended_total{reason=\"expired\"}", 1.0);
}

/// Whoever cannot be verified yet is not refused for good.
#[test]
fn while_there_are_no_keys_readers_are_told_to_come_back() {
    let keys = KeyServer::with(Behaviour::Answer("HTTP/1.1 500 x\r\n\r\n".to_owned()));
    let url = keys.url();
    let gateway =
        Gateway::serve(&[("push-auth", "none"), ("read-auth", "jwt"), ("read-jwks-url", &url)]);
    assert_eq!(gateway.get("/readyz", &[]).status, 503);
    let bearer = bearer(&sign(&claims(&["*"])));
    let headers = [("Authorization", &*bearer), ("Last-Event-ID", "17-4")];
    let mut source = EventSource::connect(gateway.address, "/events", &headers);
    assert_eq!(source.status, 200);
    let end = source.next_raw().unwrap();
    assert_eq!((end.event.as_str(), end.id.as_str()), ("stream-end", "17-4"));
    assert!(end.data.contains("unready"));
    let refused = gateway.get("/events", &[("Authorization", &bearer)]);
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
}
