//! The keys of the push tokens' issuer: fetched ahead of need, and never while a push waits for
//! a key that is known.
//!
//! One task does all fetching, so there is one fetch at a time and no lock across it. Pushes read
//! what it last published.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse},
};
use rand::RngExt as _;
use reqwest::header;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{metrics::Metrics, problem::error_chain};

/// The key set of an issuer. A clone shares it; the task ends with the last one.
#[derive(Debug, Clone)]
pub struct Keys {
    state: watch::Receiver<State>,
    unknown_kid: Arc<Notify>,
    _task: Arc<AbortOnDrop>,
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
    Known(Arc<DecodingKey>),
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
    by_kid: HashMap<String, Arc<DecodingKey>>,
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
    /// Begins to fetch from `url`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn start(url: String, times: KeyTimes, metrics: Metrics) -> reqwest::Result<Self> {
        // A redirect could point at anything this host can reach, such as the metadata server.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(times.fetch_max)
            .user_agent(concat!("stream-events/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (publish, state) = watch::channel(State::default());
        let unknown_kid = Arc::new(Notify::new());
        let issuer = Issuer { client, url, times, metrics };
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

    fn key(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.usable()?.by_kid.get(kid).cloned()
    }

    fn missing(&self) -> Lookup {
        if self.usable().is_some() { Lookup::Unknown } else { Lookup::Unavailable }
    }
}

struct Issuer {
    client: reqwest::Client,
    url: String,
    times: KeyTimes,
    metrics: Metrics,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum Unfetched {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the answer is {0}, not 200")]
    Status(reqwest::StatusCode),
    #[error("the answer is larger than {BODY_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is no key set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error("none of its keys is an RSA key for RS256 signatures with a kid")]
    NoUsableKey,
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
                    tracing::warn!(url = self.url, error = chain, "no keys for push tokens");
                    let wait = pause;
                    pause = (pause * 2).min(self.times.cool_down);
                    (wait, wait)
                }
            };
            let result = if fetched.is_ok() { "ok" } else { "failed" };
            self.metrics.key_fetches.with_label_values(&[result]).inc();
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

    async fn fetch(&self) -> Result<(KeySet, Duration), Unfetched> {
        let mut response = self.client.get(&self.url).send().await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Unfetched::Status(response.status()));
        }
        let age = max_age(response.headers()).unwrap_or(Duration::from_secs(3600));
        let age = age.clamp(self.times.age_min, self.times.age_max);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if BODY_MAX_BYTES < body.len() + chunk.len() {
                return Err(Unfetched::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let wire: WireKeySet = serde_json::from_slice(&body)?;
        let by_kid: HashMap<_, _> =
            wire.keys.into_iter().take(KEYS_MAX).filter_map(usable_key).collect();
        if by_kid.is_empty() {
            return Err(Unfetched::NoUsableKey);
        }
        Ok((KeySet { by_kid, usable_until: Instant::now() + self.times.stale_max }, age))
    }
}

/// A key that can verify an RS256 signature, and its id. One that cannot is passed over: an issuer
/// may add keys of other kinds at any time.
fn usable_key(value: serde_json::Value) -> Option<(String, Arc<DecodingKey>)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else { return None };
    let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let for_rs256 = matches!(jwk.common.key_algorithm, None | Some(KeyAlgorithm::RS256));
    if !for_signatures || !for_rs256 || rsa.n.len() < MODULUS_MIN_CHARS {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(key)))
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
