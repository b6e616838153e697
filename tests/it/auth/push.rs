//! Push tokens: valid tokens are accepted, and all others are refused.

use std::{io::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use stream_events::{
    auth::{
        AuthError,
        jwks::{KeyTimes, Keys},
        push::Verifier,
    },
    clock,
};

use crate::support::{
    PATIENCE,
    gateway::Gateway,
    http1::{self, Answer},
    jwks::{
        ACCOUNT, ANOTHER, AUDIENCE, Behaviour, ISSUERS, KID, KeyServer, claims, sign, sign_with,
    },
};

const BODY: &[u8] = br#"{"message":{"data":"eA=="}}"#;

/// Starts a gateway that verifies push tokens with the keys of `keys`.
fn gateway(keys: &KeyServer) -> Gateway {
    Gateway::serve(&[
        ("push-auth", "oidc"),
        ("push-audience", AUDIENCE),
        ("push-audience", "second-audience"),
        ("push-service-account", ACCOUNT),
        ("push-jwks-url", &keys.url()),
        ("read-auth", "anonymous"),
    ])
}

fn push(gateway: &Gateway, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    gateway.post("/push/orders", &[("Authorization", &authorization)], BODY)
}

/// Returns the valid claims after a change.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut changed = claims();
    change(&mut changed);
    changed
}

/// Returns the valid claims without one of them.
fn without(claim: &str) -> Value {
    with(|claims| drop(claims.as_object_mut().unwrap().remove(claim)))
}

/// Returns a token with the valid claims, any header and any signature.
fn forged(header: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&claims()))
}

#[test]
fn tokens_of_google_are_accepted() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys);
    for (name, claims) in [
        ("unchanged", claims()),
        ("the other spelling of iss", with(|c| c["iss"] = "accounts.google.com".into())),
        ("the second audience", with(|c| c["aud"] = "second-audience".into())),
        ("without iat", without("iat")),
        ("a clock that is 10 s ahead", with(|c| c["iat"] = (clock::now_ms() / 1000 + 10).into())),
    ] {
        assert_eq!(push(&gateway, &sign(&claims)).status, 204, "{name}");
    }
    let lower = format!("bearer {}", sign(&claims()));
    assert_eq!(gateway.post("/push/orders", &[("Authorization", &lower)], BODY).status, 204);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_other_token_is_refused() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys);
    let now = clock::now_ms() / 1000;
    let hs256 = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(KID.to_owned());
        encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let elsewhere = |parameter: &str| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(KID.to_owned());
        match parameter {
            "jku" => header.jku = Some("https://attacker.example/keys".to_owned()),
            _ => header.x5u = Some("https://attacker.example/cert".to_owned()),
        }
        encode(&header, &claims(), &ANOTHER.private).unwrap()
    };
    let mut no_kid = Header::new(Algorithm::RS256);
    no_kid.kid = None;
    let good = sign(&claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let table: Vec<(&str, String, u16)> = vec![
        ("garbage", "garbage".to_owned(), 401),
        ("three parts of garbage", "a.b.c".to_owned(), 401),
        ("no signature", format!("{signed}."), 401),
        ("half a signature", good[..good.len() - 100].to_owned(), 401),
        ("alg none", forged(&json!({ "alg": "none", "typ": "JWT", "kid": KID }), ""), 401),
        ("alg None", forged(&json!({ "alg": "None", "kid": KID }), ""), 401),
        ("HS256 with the public key as its secret", hs256(ISSUERS.pem.as_bytes()), 401),
        ("HS256 with an empty secret", hs256(b""), 401),
        ("RS512", forged(&json!({ "alg": "RS512", "kid": KID }), "c2ln"), 401),
        ("another kid", sign_with(&ISSUERS, "key-9", &claims()), 401),
        ("crit", forged(&json!({ "alg": "RS256", "kid": KID, "crit": ["exp"] }), "c2ln"), 401),
        ("no kid", encode(&no_kid, &claims(), &ISSUERS.private).unwrap(), 401),
        ("another key", sign_with(&ANOTHER, KID, &claims()), 401),
        ("jku that points elsewhere", elsewhere("jku"), 401),
        ("x5u that points elsewhere", elsewhere("x5u"), 401),
        ("another aud", sign(&with(|c| c["aud"] = "https://other.example".into())), 401),
        (
            "an aud that begins like the right one",
            sign(&with(|c| c["aud"] = format!("{AUDIENCE}/").into())),
            401,
        ),
        ("an aud in other case", sign(&with(|c| c["aud"] = AUDIENCE.to_uppercase().into())), 401),
        ("a list of aud", sign(&with(|c| c["aud"] = json!([AUDIENCE, "other"]))), 401),
        ("no aud", sign(&without("aud")), 401),
        ("another iss", sign(&with(|c| c["iss"] = "https://accounts.example".into())), 401),
        ("a list of iss", sign(&with(|c| c["iss"] = json!(["accounts.google.com", "x"]))), 401),
        ("no iss", sign(&without("iss")), 401),
        ("no email", sign(&without("email")), 401),
        ("another email", sign(&with(|c| c["email"] = "x@example.com".into())), 403),
        (
            "an email in other case",
            sign(&with(|c| c["email"] = ACCOUNT.to_uppercase().into())),
            403,
        ),
        ("email_verified false", sign(&with(|c| c["email_verified"] = false.into())), 403),
        ("email_verified as text", sign(&with(|c| c["email_verified"] = "true".into())), 401),
        ("no email_verified", sign(&without("email_verified")), 401),
        ("expired", sign(&with(|c| c["exp"] = (now - 100).into())), 401),
        ("no exp", sign(&without("exp")), 401),
        ("not yet valid by nbf", sign(&with(|c| c["nbf"] = (now + 1000).into())), 401),
        ("not yet valid by iat", sign(&with(|c| c["iat"] = (now + 1000).into())), 401),
        ("a very long token", "a".repeat(20_000), 401),
    ];
    for (name, token, status) in table {
        let answer = push(&gateway, &token);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{name}");
    }
    for headers in [&[][..], &[("Authorization", "")], &[("Authorization", "Basic eDp5")]] {
        let answer = gateway.post("/push/orders", headers, BODY);
        assert_eq!(answer.status, 401, "{headers:?}");
        // RFC 6750, section 3.1: a request without a token gets no error code.
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{headers:?}");
    }
    let answer = push(&gateway, "\u{e9}");
    let challenge = answer.header("www-authenticate");
    assert_eq!((answer.status, challenge), (401, Some("Bearer error=\"invalid_token\"")));
    gateway.until_metric("stream_events_ring_events", 0.0);
}

/// The gateway does not read the body of a push with an invalid token.
#[test]
fn refusal_does_not_wait_for_the_body() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys);
    let mut socket = http1::connect(gateway.address);
    let headers = [("Content-Length", "1000000"), ("Authorization", "Bearer x.y.z")];
    http1::write_head(&mut socket, "POST", "/push/orders", &headers);
    socket.write_all(b"{").unwrap();
    assert_eq!(http1::read_answer(socket, "POST").status, 401);
}

#[test]
fn verified_token_is_remembered_while_the_issuer_is_down() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys);
    let token = sign(&claims());
    assert_eq!(push(&gateway, &token).status, 204);
    // While the issuer is down, remembered tokens and new tokens of a known key are accepted.
    keys.set(Behaviour::Hang);
    assert_eq!(push(&gateway, &token).status, 204);
    assert_eq!(push(&gateway, &sign(&with(|c| c["sub"] = "2".into()))).status, 204);
    assert_eq!(keys.requests(), 0);
    let count = |result: &str| {
        gateway.metric(&format!("stream_events_push_tokens_total{{result=\"{result}\"}}"))
    };
    assert_eq!((count("verified"), count("remembered")), (2.0, 1.0));
    // A remembered token that is changed is another token.
    assert_eq!(push(&gateway, &format!("{token}x")).status, 401);
}

#[test]
fn pushes_are_503_without_keys() {
    let keys = KeyServer::with(Behaviour::Answer("HTTP/1.1 500 Oops\r\n\r\n".to_owned()));
    let gateway = gateway(&keys);
    let answer = push(&gateway, &sign(&claims()));
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(push(&gateway, "garbage").status, 401, "malformed without any key");
    let ready = gateway.get("/readyz", &[]);
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("keys"), "{}", ready.text());
    assert_eq!(gateway.get("/healthz", &[]).status, 200);

    keys.set(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=3600"));
    crate::support::eventually("the gateway is ready", || {
        (gateway.get("/readyz", &[]).status == 200).then_some(())
    });
    assert_eq!(push(&gateway, &sign(&claims())).status, 204);
}

/// A remembered token is forgotten when it expires, and when the issuer withdraws its key.
#[tokio::test]
async fn remembered_token_is_forgotten_with_its_expiry_or_its_key() {
    let server = KeyServer::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "max-age=0"));
    let times = KeyTimes { age_min: Duration::from_millis(20), ..KeyTimes::default() };
    let keys = Keys::start(crate::auth::jwks::source(&server), times).unwrap();
    let verifier = Verifier::new(keys.clone(), &[AUDIENCE.to_owned()], &[ACCOUNT.to_owned()]);
    let claims = claims();
    let token = format!("Bearer {}", sign(&claims));
    let verify = |now_ms| verifier.verify(Some(token.as_bytes()), now_ms);
    let now_ms = clock::now_ms();
    let remembers = |now_ms| verifier.remembers(Some(token.as_bytes()), now_ms);
    assert!(!remembers(now_ms));
    assert_eq!(verify(now_ms).await, Ok(()));
    assert!(remembers(now_ms));
    let expired_ms = claims["exp"].as_u64().unwrap() * 1000;
    assert!(!remembers(expired_ms), "expired");
    server.set(Behaviour::keys(&[ANOTHER.jwk("key-2")], "max-age=3600"));
    let key_withdrawn = async {
        while keys.contains(KID) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, key_withdrawn).await.unwrap();
    assert!(!remembers(now_ms));
    assert!(matches!(verify(now_ms).await, Err(AuthError::Invalid(_))));
}
