//! The keys of an issuer of tokens: fetched ahead of need, and never while a request waits for a
//! key that is known.
//!
//! One task does all fetching, so there is one fetch at a time and no lock across it. Requests read
//! what it last published.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use prometheus::IntCounterVec;
use rand::RngExt as _;
use reqwest::header;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::http::problem::error_chain;

/// The key set of an issuer. A clone shares it; the task ends with the last one.
#[derive(Debug, Clone)]
pub struct Keys {
    state: watch::Receiver<State>,
    unknown_kid: Arc<Notify>,
    _task: Arc<AbortOnDrop>,
}

/// A key, and the only algorithm whose signatures it verifies. What a token says of its algorithm
/// must agree, and decides nothing.
pub struct Key {
    pub key: DecodingKey,
    pub algorithm: Algorithm,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// An issuer's key set, and what is wanted of it.
#[derive(Debug)]
pub struct KeySource {
    pub url: String,
    /// What they verify, for logs: `push tokens`.
    pub of: &'static str,
    /// Keys for other algorithms are passed over.
    pub algorithms: &'static [Algorithm],
    /// Counts fetches by `result`.
    pub fetches: IntCounterVec,
}

/// When to fetch.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// A key set is kept for no shorter than this, whatever its `Cache-Control` says.
    pub age_min: Duration,
    /// Nor for longer.
    pub age_max: Duration,
    /// Unknown `kid`s cause no more than one fetch in so long: anyone can invent one.
    pub cool_down: Duration,
    /// The first pause after a failed fetch; it doubles up to `cool_down`.
    pub retry: Duration,
    /// For how long the last key set is used when the issuer cannot be reached.
    pub stale_max: Duration,
    /// A fetch that takes longer has failed.
    pub fetch_max: Duration,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self {
            age_min: Duration::from_secs(60),
            age_max: Duration::from_secs(24 * 3600),
            cool_down: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            stale_max: Duration::from_secs(24 * 3600),
            fetch_max: Duration::from_secs(5),
        }
    }
}

/// What a look for a key found.
#[derive(Debug)]
pub enum Lookup {
    /// The key.
    Known(Arc<Key>),
    /// The issuer has no such key.
    Unknown,
    /// There is no key set to look into: nothing can be verified, so nothing is let in.
    Unavailable,
}

#[derive(Debug, Clone, Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// How many fetches have ended.
    fetches: u64,
    /// No fetch for the sake of an unknown `kid` before this.
    cool_until: Option<Instant>,
}

#[derive(Debug)]
struct KeySet {
    by_kid: HashMap<String, Arc<Key>>,
    usable_until: Instant,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that is larger is no key set.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Nor is one of more keys.
const KEYS_MAX: usize = 100;
/// 2048 bits in base64url: a shorter RSA key can be broken.
const MODULUS_MIN_CHARS: usize = 342;

impl Keys {
    /// Begins to fetch.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn start(source: KeySource, times: KeyTimes) -> reqwest::Result<Self> {
        // A redirect could point at anything this host can reach, such as the metadata server.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(times.fetch_max)
            .user_agent(concat!("stream-events/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (publish, state) = watch::channel(State::default());
        let unknown_kid = Arc::new(Notify::new());
        let issuer = Issuer { client, source, times };
        let task = tokio::spawn(issuer.follow(publish, Arc::clone(&unknown_kid)));
        Ok(Self { state, unknown_kid, _task: Arc::new(AbortOnDrop(task)) })
    }

    /// Finds a key. For a `kid` that is not known it waits for one fetch, unless there was one just
    /// now.
    pub async fn find(&self, kid: &str) -> Lookup {
        let state = self.state.borrow().clone();
        if let Some(key) = state.key(kid) {
            return Lookup::Known(key);
        }
        let cooling = state.cool_until.is_some_and(|until| Instant::now() < until);
        if cooling {
            return state.missing();
        }
        self.unknown_kid.notify_one();
        let mut later = self.state.clone();
        // The fetch has a limit of its own; this one is for a task that is gone.
        let waited =
            timeout(Duration::from_secs(30), later.wait_for(|later| state.fetches < later.fetches));
        match waited.await {
            Ok(Ok(later)) => later.key(kid).map_or_else(|| later.missing(), Lookup::Known),
            _ => Lookup::Unavailable,
        }
    }

    /// Whether the key is still in the issuer's set, for tokens that were verified before.
    pub fn has(&self, kid: &str) -> bool {
        self.state.borrow().key(kid).is_some()
    }

    /// Whether there is a key set.
    pub fn available(&self) -> bool {
        matches!(self.state.borrow().missing(), Lookup::Unknown)
    }
}

impl State {
    fn usable(&self) -> Option<&KeySet> {
        self.set.as_deref().filter(|set| Instant::now() < set.usable_until)
    }

    fn key(&self, kid: &str) -> Option<Arc<Key>> {
        self.usable()?.by_kid.get(kid).cloned()
    }

    fn missing(&self) -> Lookup {
        if self.usable().is_some() { Lookup::Unknown } else { Lookup::Unavailable }
    }
}

struct Issuer {
    client: reqwest::Client,
    source: KeySource,
    times: KeyTimes,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the answer is {0}, not 200")]
    Status(reqwest::StatusCode),
    #[error("the answer is larger than {BODY_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is no key set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error("none of its keys has a kid and is for signatures with one of {0:?}")]
    NoUsableKey(&'static [Algorithm]),
}

#[derive(Deserialize)]
struct WireKeySet {
    keys: Vec<serde_json::Value>,
}

impl Issuer {
    async fn follow(self, publish: watch::Sender<State>, unknown_kid: Arc<Notify>) {
        let mut pause = self.times.retry;
        loop {
            let fetched = self.fetch().await;
            let (next, cool_down) = match &fetched {
                Ok((_, age)) => {
                    pause = self.times.retry;
                    // Ahead of the age's end, and not at the same second as every other gateway.
                    let ahead = rand::rng().random_range(0.7..0.8);
                    (age.mul_f64(ahead), self.times.cool_down)
                }
                Err(err) => {
                    let chain = error_chain(err);
                    let KeySource { url, of, .. } = &self.source;
                    tracing::warn!(url, error = chain, "no keys for {of}");
                    let wait = pause;
                    pause = (pause * 2).min(self.times.cool_down);
                    (wait, wait)
                }
            };
            let result = if fetched.is_ok() { "ok" } else { "failed" };
            self.source.fetches.with_label_values(&[result]).inc();
            publish.send_modify(|state| {
                if let Ok((set, _)) = fetched {
                    state.set = Some(Arc::new(set));
                }
                state.fetches += 1;
                state.cool_until = Some(Instant::now() + cool_down);
            });
            // Those who asked while the fetch was on have had their answer. Whoever asks from now
            // on sees the cool-down, and asks for a fetch only after it: that must not be thrown
            // away.
            std::pin::pin!(unknown_kid.notified()).as_mut().enable();
            let asked = async {
                tokio::time::sleep(cool_down).await;
                unknown_kid.notified().await;
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = asked => {}
            }
        }
    }

    async fn fetch(&self) -> Result<(KeySet, Duration), FetchError> {
        let mut response = self.client.get(&self.source.url).send().await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let age = max_age(response.headers()).unwrap_or(Duration::from_secs(3600));
        let age = age.clamp(self.times.age_min, self.times.age_max);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if BODY_MAX_BYTES < body.len() + chunk.len() {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let wire: WireKeySet = serde_json::from_slice(&body)?;
        let wanted = self.source.algorithms;
        let keys = wire.keys.into_iter().take(KEYS_MAX);
        let by_kid: HashMap<_, _> = keys.filter_map(|key| usable_key(key, wanted)).collect();
        if by_kid.is_empty() {
            return Err(FetchError::NoUsableKey(wanted));
        }
        Ok((KeySet { by_kid, usable_until: Instant::now() + self.times.stale_max }, age))
    }
}

/// A key that can verify a signature that is wanted, and its id. One that cannot is passed over: an
/// issuer may add keys of other kinds at any time.
fn usable_key(value: serde_json::Value, wanted: &[Algorithm]) -> Option<(String, Arc<Key>)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let algorithm = algorithm_of(&jwk).filter(|algorithm| wanted.contains(algorithm))?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(Key { key, algorithm })))
}

/// The algorithm that a key is for: the one that it names, if it can be that, else the usual one of
/// its kind. A symmetric key has no place in a public set.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if MODULUS_MIN_CHARS <= rsa.n.len() => {
            &[RS256, RS384, RS512, PS256, PS384, PS512]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        _ => return None,
    };
    match jwk.common.key_algorithm {
        None => possible.first().copied(),
        Some(named) => possible.iter().copied().find(|one| KeyAlgorithm::from(*one) == named),
    }
}

/// For how long the answer may be kept
/// ([RFC 9111, section 4.2](https://www.rfc-editor.org/rfc/rfc9111#section-4.2)).
fn max_age(headers: &header::HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let control = text(header::CACHE_CONTROL)?;
    let seconds: u64 = control
        .split(',')
        .filter_map(|directive| directive.trim().strip_prefix("max-age="))
        .find_map(|seconds| seconds.trim_matches('"').parse().ok())?;
    let age: u64 = text(header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0);
    Some(Duration::from_secs(seconds.saturating_sub(age)))
}
