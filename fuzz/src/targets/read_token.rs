//! Readers' tokens and their grants: a token is accepted if and only if the issuer's key has signed
//! it and its claims are right, and it grants exactly what its claims say.
//!
//! An input that begins with `g` is a grant in JSON, as another replica sends it.

use std::{
    io::Write as _,
    sync::{Arc, LazyLock},
};

use actix_web::{http::header::HeaderValue, test::TestRequest};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;
use stream_events::{
    auth::{
        access::{Access, TokenCheck, TokenCookie},
        grant::{Grant, Holder},
        key_file::load_key,
        reader::{ReaderVerifier, TokenKeys},
    },
    clock,
    config::Mode,
    http::cors::Pages,
    model::{filter::Filter, topic::TopicPattern},
};
use tokio::runtime::{Builder, Runtime};

use super::signed::{Issuer, Tried, is_strange, names, plain};

const AUDIENCE: &str = "https://gateway.example/events";
const ISSUER: &str = "https://issuer.example";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Claims that expire in the year 2100, so that a seed keeps its meaning.
const CLAIMS: &str = r#"{"aud":"https://gateway.example/events","exp":4102444800,"grant":{"topics":["orders","logs.*"]},"iss":"https://issuer.example","sub":"ada"}"#;
/// Secret of this test only.
const SECRET: &[u8] = b"of no use outside of these tests";
/// Leeway of the gateway, and one second for the time that the check takes.
const LEEWAY_SECS: u64 = 31;
/// Largest number of topic patterns in a token.
const PATTERNS_MAX: usize = 1_000;
/// Largest token that is decoded, in bytes.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

static ACCESS: LazyLock<(Runtime, Access)> = LazyLock::new(|| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SECRET).unwrap();
    let keys = TokenKeys::Single(load_key(file.path()).unwrap());
    let verifier =
        ReaderVerifier::new(keys, &[AUDIENCE.to_owned()], &[ISSUER.to_owned()], "grant.topics");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let pages = Pages { mode: Mode::Serve, origins: Vec::new() };
    let cookie = Some(TokenCookie { name: "session".to_owned(), pages });
    (runtime, Access::Token(Arc::new(TokenCheck { verifier, cookie })))
});

/// Runs the target on one input: see the module.
pub fn run(input: &[u8]) -> &'static str {
    if let Some(text) = input.strip_prefix(b"g").and_then(|text| str::from_utf8(text).ok()) {
        let Some(grant) = Grant::from_json(text) else { return "no-grant" };
        assert_eq!(Grant::from_json(&grant.to_json()), Some(grant));
        return "grant";
    }
    let key = EncodingKey::from_secret(SECRET);
    let issuer = Issuer { key: &key, algorithm: Algorithm::HS256, header: HEADER, claims: CLAIMS };
    match issuer.token(input) {
        None => "nothing",
        Some(Tried::Forged(token)) => {
            assert_eq!(granted(&token), None, "{:?}", String::from_utf8_lossy(&token));
            "forged"
        }
        Some(Tried::Signed { token, header, claims }) => {
            let grant = granted(token.as_bytes());
            if let (Some(tree), Some(claims)) = (plain(&header), plain(&claims)) {
                let want = expected(&token, &claims).filter(|_| !is_strange(&tree, "HS256"));
                let must = header == HEADER.as_bytes() && token.len() <= TOKEN_MAX_BYTES;
                assert!(grant == want || grant.is_none() && !must, "{grant:?}: {tree}, {claims}");
            }
            let Some(grant) = grant else { return "refused" };
            assert_eq!(Grant::from_json(&grant.to_json()), Some(grant));
            "let-in"
        }
    }
}

/// Returns the grant of a request with the token. It must be the same with the token in the header
/// and in the cookie.
fn granted(token: &[u8]) -> Option<Grant> {
    let (runtime, access) = &*ACCESS;
    let admitted = |name: &str, before: &[u8], after: &[u8]| {
        let value = HeaderValue::from_bytes(&[before, token, after].concat()).ok()?;
        let request = TestRequest::default().insert_header((name, value)).to_http_request();
        runtime.block_on(access.admit(&request)).ok()?
    };
    let by_header = admitted("authorization", b"Bearer ", b"");
    let by_cookie = admitted("cookie", b"a=b; session=", b"; c=d");
    assert_eq!(by_cookie, by_header, "{:?}", String::from_utf8_lossy(token));
    by_header
}

/// Returns the patterns of the claim `publish`. `None` if it is missing or has another form.
fn published(claims: &Value) -> Option<Vec<TopicPattern>> {
    let texts = match claims.get("publish")? {
        Value::String(one) => vec![one.as_str()],
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    let patterns: Option<Vec<_>> = texts.iter().map(|text| text.parse().ok()).collect();
    patterns.filter(|all| all.len() <= PATTERNS_MAX)
}

/// Returns the grant that the claims must give, or `None` if they must be refused.
fn expected(token: &str, claims: &Value) -> Option<Grant> {
    let now = clock::now_ms() / 1000;
    let latest = (now + LEEWAY_SECS + 1) as f64;
    let exp = claims["exp"].as_f64().filter(|exp| (now - LEEWAY_SECS) as f64 <= *exp)?;
    let begun = claims.get("nbf").is_none_or(|nbf| nbf.as_f64().is_some_and(|nbf| nbf < latest));
    let meant = names(&claims["aud"], AUDIENCE) && names(&claims["iss"], ISSUER);
    // A filter narrows what its reader may see: a claim that is no filter must be refused.
    let filter = match claims.get("filter") {
        None => None,
        Some(text) => Some(Filter::parse(text.as_str()?).ok()?),
    };
    let topics = match claims.get("grant")?.get("topics")? {
        Value::String(one) => vec![one.as_str()],
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    let patterns: Result<Vec<TopicPattern>, _> = topics.iter().map(|topic| topic.parse()).collect();
    let patterns = patterns.ok().filter(|all| all.len() <= PATTERNS_MAX)?;
    let named = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
    let holder = match (named("sub"), named("jti")) {
        (Some(subject), _) => Holder::Subject(subject.into()),
        (None, Some(id)) => Holder::Token(id.into()),
        (None, None) => Holder::of_signed(token),
    };
    (begun && meant && exp < 1e12).then(|| Grant {
        subject: named("sub").map(Into::into),
        holder,
        topics: patterns.into(),
        publish: published(claims).unwrap_or_default().into(),
        filter,
        expires_ms: (exp * 1000.0) as u64,
    })
}
