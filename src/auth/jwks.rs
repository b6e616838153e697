//! Cache of an issuer's key set. The keys are fetched before they are too old, so a request never
//! waits for a key that is known.
//!
//! A single task does all fetches: there is one fetch at a time, and no lock is held during it.
//! Requests read the key set that the task published last.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

pub use crate::auth::key_set::{Key, KeySource};

use crate::{
    auth::key_set::{KeysByKid, fetch},
    http::problem::error_chain,
};

/// Handle to the cached key set of an issuer. Clones share the cache. The task ends when the last
/// clone is dropped.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Kind of tokens that the keys verify.
    token_kind: &'static str,
    /// Algorithms that a key of the set can have.
    algorithms: &'static [Algorithm],
    /// State that the task published last.
    state: watch::Receiver<State>,
    /// Request to the task to fetch the set because of an unknown `kid`.
    unknown_kid: Arc<Notify>,
    /// Task that fetches.
    _task: Arc<AbortOnDrop>,
}

/// Times of fetches.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// Shortest time to keep a key set, even if its `Cache-Control` says less.
    pub age_min: Duration,
    /// Longest time to keep a key set, even if its `Cache-Control` says more.
    pub age_max: Duration,
    /// Shortest time between two fetches because of an unknown `kid`: anyone can invent a `kid`.
    pub cool_down: Duration,
    /// Pause after the first failed fetch. It doubles with each failure, up to `cool_down`.
    pub retry: Duration,
    /// Longest use of a key set after its fetch, while the issuer cannot be reached.
    pub stale_max: Duration,
    /// Timeout of a fetch.
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

/// Result of a search for a key.
#[derive(Debug)]
pub enum Lookup {
    /// The key set has the key.
    Known(Arc<Key>),
    /// The key set has no key with this `kid`.
    Unknown,
    /// The key set is not available: no token can be verified, so all are refused.
    Unavailable,
}

/// Longest wait for the task's answer. A fetch has a timeout of its own, so this one only ends the
/// wait for a task that has ended.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
struct State {
    /// Key set of the last successful fetch.
    set: Option<Arc<KeySet>>,
    /// Number of fetches that have ended.
    fetches: u64,
    /// Earliest time of the next fetch because of an unknown `kid`.
    cool_until: Option<Instant>,
}

#[derive(Debug)]
struct KeySet {
    by_kid: KeysByKid,
    usable_until: Instant,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keys {
    /// Starts the task that fetches the key set.
    ///
    /// # Errors
    /// Fails when the HTTP client cannot be built.
    pub fn start(source: KeySource, times: KeyTimes) -> reqwest::Result<Self> {
        // A redirect could point at anything this host can reach, such as the metadata server.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(times.fetch_max)
            .user_agent(concat!("stream-events/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (publish, state) = watch::channel(State::default());
        let unknown_kid = Arc::new(Notify::new());
        let (token_kind, algorithms) = (source.token_kind, source.algorithms);
        let fetcher = Fetcher { client, source, times };
        let task = tokio::spawn(fetcher.run(publish, Arc::clone(&unknown_kid)));
        let task = Arc::new(AbortOnDrop(task));
        Ok(Self { token_kind, algorithms, state, unknown_kid, _task: task })
    }

    /// Returns the kind of tokens that the keys verify, for errors: `push tokens`.
    pub(crate) fn token_kind(&self) -> &'static str {
        self.token_kind
    }

    /// Returns the algorithms that a key of the set can have.
    pub(crate) fn algorithms(&self) -> &'static [Algorithm] {
        self.algorithms
    }

    /// Finds a key. An unknown `kid` waits for one fetch, unless the last fetch was within the
    /// cool-down.
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
        let fetched = later.wait_for(|later| state.fetches < later.fetches);
        match timeout(TASK_TIMEOUT, fetched).await {
            Ok(Ok(later)) => later.key(kid).map_or_else(|| later.missing(), Lookup::Known),
            _ => Lookup::Unavailable,
        }
    }

    /// Returns true if the key is in the issuer's set now. Meant for tokens that were verified
    /// before: never fetches.
    pub fn contains(&self, kid: &str) -> bool {
        self.state.borrow().key(kid).is_some()
    }

    /// Returns true if there is a usable key set.
    pub fn is_available(&self) -> bool {
        self.state.borrow().usable().is_some()
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

/// Task that fetches the key set of one issuer.
struct Fetcher {
    client: reqwest::Client,
    source: KeySource,
    times: KeyTimes,
}

impl Fetcher {
    async fn run(self, publish: watch::Sender<State>, unknown_kid: Arc<Notify>) {
        let times = self.times;
        let mut pause = times.retry;
        loop {
            let fetched = fetch(&self.client, &self.source).await;
            let (next, cool_down) = match &fetched {
                Ok((_, age)) => {
                    pause = times.retry;
                    // Fetches before the set is too old, at a random time, so that gateways do not
                    // all fetch in the same second.
                    let ahead = rand::rng().random_range(0.7..0.8);
                    let age = (*age).clamp(times.age_min, times.age_max);
                    (age.mul_f64(ahead), times.cool_down)
                }
                Err(err) => {
                    let error = error_chain(err);
                    let KeySource { url, token_kind, .. } = &self.source;
                    tracing::warn!(url, error, "the keys for {token_kind} could not be fetched");
                    let wait = pause;
                    pause = (pause * 2).min(times.cool_down);
                    (wait, wait)
                }
            };
            let result = if fetched.is_ok() { "ok" } else { "failed" };
            self.source.fetches.with_label_values(&[result]).inc();
            publish.send_modify(|state| {
                let now = Instant::now();
                if let Ok((by_kid, _)) = fetched {
                    let usable_until = now + times.stale_max;
                    state.set = Some(Arc::new(KeySet { by_kid, usable_until }));
                }
                state.fetches += 1;
                state.cool_until = Some(now + cool_down);
            });
            // Discards a request that came during the fetch, which has answered it. Later requests
            // see the cool-down and come only after it, so none of them may be discarded.
            std::pin::pin!(unknown_kid.notified()).as_mut().enable();
            let requested = async {
                tokio::time::sleep(cool_down).await;
                unknown_kid.notified().await;
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = requested => {}
            }
        }
    }
}
