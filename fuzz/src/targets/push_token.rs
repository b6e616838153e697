//! Tokens of pushes: a token is accepted if and only if Google's key has signed it and its header
//! and claims are right.

use std::{sync::LazyLock, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::Value;
use stream_events::{
    auth::{
        jwks::{KeySource, KeyTimes, Keys},
        push::{ALGORITHMS, Verifier},
    },
    clock,
    telemetry::metrics::Metrics,
};
use tokio::runtime::{Builder, Runtime};

use super::{
    jwks::{ACCOUNT, AUDIENCE, ISSUERS, KID, KeyServer},
    signed::{Issuer, Tried, is_strange, plain},
};

const HEADER: &str = r#"{"alg":"RS256","typ":"JWT","kid":"key-1"}"#;
/// Claims that expire in the year 2100, so that a seed keeps its meaning.
const CLAIMS: &str = r#"{"aud":"https://gateway.example/push","email":"pusher@project.iam.gserviceaccount.com","email_verified":true,"exp":4102444800,"iat":1763690177,"iss":"https://accounts.google.com"}"#;
/// Leeway of the gateway, and one second for the time that the check takes.
const LEEWAY_SECS: u64 = 31;

static VERIFIER: LazyLock<(Runtime, Verifier)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let keys = runtime.block_on(async {
        let server = KeyServer::start();
        let fetches = Metrics::new().unwrap().key_fetches;
        let source = KeySource {
            url: server.url(),
            token_kind: "push tokens",
            algorithms: ALGORITHMS,
            fetches,
        };
        // Long enough for a single fetch, and none because of an unknown kid.
        let long = Duration::from_secs(365 * 24 * 3600);
        let times = KeyTimes {
            age_min: long,
            age_max: long,
            cool_down: long,
            stale_max: long,
            ..KeyTimes::default()
        };
        let keys = Keys::start(source, times).unwrap();
        while !keys.is_available() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        keys
    });
    (runtime, Verifier::new(keys, &[AUDIENCE.to_owned()], &[ACCOUNT.to_owned()]))
});

/// Runs the target on one input: see the module.
pub fn run(input: &[u8]) -> &'static str {
    let issuer = Issuer {
        key: &ISSUERS.private,
        algorithm: Algorithm::RS256,
        header: HEADER,
        claims: CLAIMS,
    };
    let Some(tried) = issuer.token(input) else { return "nothing" };
    match tried {
        Tried::Forged(token) => {
            assert!(!is_accepted(&token), "{:?}", String::from_utf8_lossy(&token));
            "forged"
        }
        Tried::Signed { token, header: of_header, claims } => {
            let accepted = is_accepted(token.as_bytes());
            let text = || String::from_utf8_lossy(&claims);
            if let (Some(header), Some(claims)) = (plain(&of_header), plain(&claims)) {
                let right = !is_strange(&header, "RS256") && header["kid"] == KID;
                let may = right && is_googles(&claims);
                assert!(may || !accepted, "accepted: {header}, {}", text());
                // Any other right header may still have a field of a wrong type.
                let must = may && of_header == HEADER.as_bytes();
                assert!(accepted || !must, "refused: {}", text());
            }
            if accepted { "let-in" } else { "refused" }
        }
    }
}

/// Returns true if the gateway accepts the token.
fn is_accepted(token: &[u8]) -> bool {
    let (runtime, verifier) = &*VERIFIER;
    let (value, now_ms) = ([b"Bearer ", token].concat(), clock::now_ms());
    let accepted = runtime.block_on(verifier.verify(Some(&value), now_ms)).is_ok();
    // An accepted token need not be remembered: the memory is limited.
    assert!(
        accepted || !verifier.remembers(Some(&value), now_ms),
        "remembered without being verified"
    );
    accepted
}

/// Returns true if the claims are as Google's documentation says, checked one by one.
fn is_googles(claims: &Value) -> bool {
    let now = clock::now_ms() / 1000;
    let whole = |name: &str| claims[name].as_u64();
    let latest = now + LEEWAY_SECS;
    // A time can have a fraction of a second (RFC 7519, section 2). Google sends no `nbf`.
    let begun = |nbf: &Value| nbf.as_f64().is_some_and(|time| time < (latest + 1) as f64);
    claims["aud"] == AUDIENCE
        && ["https://accounts.google.com", "accounts.google.com"]
            .iter()
            .any(|i| claims["iss"] == *i)
        && claims["email"] == ACCOUNT
        && claims["email_verified"] == true
        && whole("exp").is_some_and(|time| now <= time + LEEWAY_SECS)
        && (claims["iat"].is_null() || whole("iat").is_some_and(|time| time <= latest))
        && claims.get("nbf").is_none_or(begun)
}
