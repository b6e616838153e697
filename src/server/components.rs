//! Parts that all workers share, made from the configuration.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use actix_web::web;
use rand::RngExt as _;
use tokio::task::JoinSet;

use crate::{
    auth::{
        access::{Access, TokenCheck, TokenCookie},
        jwks::{Key, KeySource, KeyTimes, Keys},
        push::{self, Verifier},
        reader::{self, ReaderVerifier, TokenKeys},
    },
    backplane::{Backplane, redis::RedisLog},
    clock,
    config::{self, Config, Mode, PushAuth, ReadAuth},
    http::cors::Pages,
    hub::{DedupLimits, Hub, Limits, RingLimits},
    inlet::{body::InFlight, publish::PublishEndpoint, pull::Pulls, push::PushEndpoint},
    limits::{budget::Budget, rate::RateLimit},
    model::event_id::HISTORY_MAX,
    presence::{Rooms, exchange::Exchange},
    server::{
        api::Documents,
        health::{Gauges, Health, Readiness},
        heartbeat::{HUNG_AFTER, Heartbeats},
        inlets::InletParts,
        routes::documents,
    },
    stream::{
        POLL_ANSWERS_MAX_BYTES, SOCKET_INPUT_MAX_BYTES, StreamContext,
        fold::FOLDS_MAX_BYTES,
        large::{LARGE_EVENTS_MAX_BYTES, LargeEvents},
        lease::LeaseRegistry,
        limits::StreamLimits,
        log_lines::LogLines,
    },
    telemetry::{metrics::Metrics, traces::Traces},
};

/// Parts that all workers share.
pub(super) struct Components {
    /// Handle to the hub.
    pub(super) hub: Hub,
    /// State of the push endpoint.
    pub(super) inlet: web::Data<PushEndpoint>,
    /// Subscriptions that are pulled.
    pub(super) pulls: Arc<Pulls>,
    /// State of the publish endpoint.
    pub(super) publish: web::Data<PublishEndpoint>,
    /// State of the handlers of streams and tickets.
    pub(super) streams: web::Data<StreamContext>,
    /// Answer to `/readyz`.
    pub(super) readiness: web::Data<Readiness>,
    /// Answer to `/healthz`.
    pub(super) health: web::Data<Health>,
    /// Answer to `/metrics`.
    pub(super) gauges: web::Data<Gauges>,
    /// Answers to `/openapi.json` and `/asyncapi.json`.
    pub(super) documents: web::Data<Documents>,
    /// Bodies of pushes being received.
    pub(super) in_flight: Arc<InFlight>,
    /// Background tasks. Dropping the set ends them.
    pub(super) tasks: JoinSet<()>,
}

impl Components {
    /// Makes the parts, and starts their background tasks. `read_key` is the key of
    /// `--read-key-file`.
    ///
    /// # Errors
    /// Returns an error if a metric, an HTTP client or a document of the interface cannot be made.
    pub(super) fn new(
        config: &Config,
        read_key: Option<Key>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let metrics = Metrics::new()?;
        let (mut tasks, leases) = (JoinSet::new(), Arc::<LeaseRegistry>::default());
        let (hub, backplane) = log(config, &metrics, &leases, &mut tasks);
        let verifier = push_verifier(config, &metrics)?.map(Arc::new);
        let in_flight = InFlight::new(config.push_bytes_in_flight);
        let check = token_check(config, read_key, &metrics)?.map(Arc::new);
        let traces = Traces::start(&config.traces, &metrics.spans, &mut tasks)?;
        let parts = InletParts {
            config,
            backplane: &backplane,
            metrics: &metrics,
            traces: &traces,
            in_flight: &in_flight,
        };
        let inlet = parts.push_endpoint(verifier.clone());
        let publish = parts.publish_endpoint(check.as_ref());
        let pulls = Arc::new(parts.pulls(&mut tasks));
        let limit = |flag| metrics.limit(flag);
        let streams = StreamContext {
            hub: hub.clone(),
            backplane: backplane.clone(),
            access: match (&config.read_auth, check) {
                (ReadAuth::Jwt(_), Some(check)) => Access::Token(check),
                _ => Access::Anonymous,
            },
            served: config.topics.clone(),
            metrics: metrics.clone(),
            traces,
            log_lines: LogLines::new(),
            limits: StreamLimits::new(config.streams_per_subject, config.streams_per_address),
            topics_per_stream: config.topics_per_stream,
            tickets: RateLimit::new(config.tickets_per_subject, limit("tickets-per-subject")),
            requests: RateLimit::new(config.requests_per_address, limit("requests-per-address")),
            trusted_proxies: config.trusted_proxies,
            presence: presence(config, &backplane, &mut tasks),
            leases,
            waiting: AtomicUsize::new(0),
            large_events: LargeEvents::new(LARGE_EVENTS_MAX_BYTES),
            folds: Budget::new(FOLDS_MAX_BYTES),
            poll_answers: Budget::new(POLL_ANSWERS_MAX_BYTES),
            socket_input: Budget::new(SOCKET_INPUT_MAX_BYTES),
            keep_alive: config.keep_alive,
            stream_age_max: config.stream_age_max,
        };
        let heartbeats = Heartbeats::new(HUNG_AFTER, Instant::now());
        let gauges = Gauges::new(
            metrics.registry,
            hub.clone(),
            backplane.clone(),
            Arc::clone(&in_flight),
            Arc::clone(&streams.presence),
            heartbeats.clone(),
        )?;
        let (streams, publish) = (web::Data::new(streams), web::Data::new(publish));
        let readiness =
            Readiness::new(verifier, Arc::clone(&pulls), publish.clone(), streams.clone());
        Ok(Self {
            hub,
            inlet: web::Data::new(inlet),
            pulls,
            publish,
            streams,
            readiness: web::Data::new(readiness),
            health: web::Data::new(Health::new(heartbeats)),
            gauges: web::Data::new(gauges),
            documents: web::Data::new(documents(config)?),
            in_flight,
            tasks,
        })
    }
}

/// Makes the exchange of presence with other replicas, and starts its task.
fn presence(config: &Config, backplane: &Backplane, tasks: &mut JoinSet<()>) -> Arc<Exchange> {
    let rooms = Rooms::new(backplane.is_shared(), config.presence_grace);
    let exchange = Exchange::new(rooms, backplane.clone());
    tasks.spawn(Arc::clone(&exchange).run());
    exchange
}

/// Creates the verifier of push tokens. Returns `None` when pushes need no token.
fn push_verifier(
    config: &Config,
    metrics: &Metrics,
) -> Result<Option<Verifier>, Box<dyn std::error::Error + Send + Sync>> {
    let PushAuth::Oidc { audiences, service_accounts } = &config.push_auth else {
        return Ok(None);
    };
    let source = KeySource {
        url: config.push_jwks_url.clone(),
        token_kind: "push tokens",
        algorithms: push::ALGORITHMS,
        fetches: metrics.key_fetches.clone(),
    };
    let keys = Keys::start(source, KeyTimes::default())?;
    Ok(Some(Verifier::new(keys, audiences, service_accounts)))
}

/// Makes the check of the tokens of readers and publishers. Returns `None` when none of them needs
/// a token.
fn token_check(
    config: &Config,
    read_key: Option<Key>,
    metrics: &Metrics,
) -> Result<Option<TokenCheck>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(options) = config.token_checks() else { return Ok(None) };
    let keys = match &options.keys {
        config::ReadKeys::File(_) => TokenKeys::Single(read_key.ok_or("the key is not loaded")?),
        config::ReadKeys::Url(url) => {
            let source = KeySource {
                url: url.clone(),
                token_kind: "readers' tokens (--read-jwks-url)",
                algorithms: reader::ALGORITHMS,
                fetches: metrics.read_key_fetches.clone(),
            };
            TokenKeys::Set(Keys::start(source, KeyTimes::default())?)
        }
    };
    let (audiences, issuers) = (&options.audiences, &options.issuers);
    let verifier = ReaderVerifier::new(keys, audiences, issuers, &options.topics_claim);
    let pages = || Pages { mode: config.mode, origins: config.cors_origins.clone() };
    let cookie = options.cookie.clone().map(|name| TokenCookie { name, pages: pages() });
    Ok(Some(TokenCheck { verifier, cookie }))
}

/// Makes the hub and the backplane that fills it. Adds the backplane's background tasks to `tasks`.
fn log(
    config: &Config,
    metrics: &Metrics,
    leases: &Arc<LeaseRegistry>,
    tasks: &mut JoinSet<()>,
) -> (Hub, Backplane) {
    match &config.backplane {
        config::BackplaneConfig::Local => {
            let history = rand::rng().random_range(1..=HISTORY_MAX);
            let hub = Hub::new(limits(config), history, clock::now_ms());
            if config.mode == Mode::Serve {
                tracing::info!(
                    "events are held in the memory of this process: run one replica only, because \
                     each message is pushed to one replica (several: --backplane redis://…)"
                );
            }
            (hub.clone(), Backplane::Local(hub, Arc::default()))
        }
        config::BackplaneConfig::Redis(options) => {
            let hub = Hub::copy(limits(config));
            let (copy, metrics) = (hub.clone(), metrics.clone());
            let (redis, mut renewals) =
                RedisLog::start(options, config.ring_age, copy, metrics, tasks);
            let leases = Arc::clone(leases);
            tasks.spawn(async move {
                while let Some(renewal) = renewals.recv().await {
                    leases.renew(&renewal);
                }
            });
            (hub, Backplane::Redis(redis))
        }
    }
}

/// Collects the hub's limits from the configuration.
fn limits(config: &Config) -> Limits {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Limits {
        ring: RingLimits { events: config.ring_events, bytes: config.ring_bytes },
        ring_age_ms: millis(config.ring_age),
        ring_bytes_total: config.ring_bytes_total,
        topics: config.topics_max,
        dedup: DedupLimits {
            age_ms: millis(config.dedup_age),
            ids: config.dedup_ids,
            ids_total: config.dedup_ids_total,
        },
        subscribers: config.subscribers_max,
        followed_bytes: config.followed_bytes_max,
        filters: config.filters_max,
    }
}
