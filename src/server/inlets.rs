//! Inlets that all workers share, made from the configuration.

use std::sync::Arc;

use prometheus::IntCounterVec;
use tokio::task::JoinSet;

use crate::{
    auth::{access::TokenCheck, publisher::PublishAccess, push::Verifier},
    backplane::Backplane,
    config::{Config, PublishAuth, PushAuth},
    inlet::{Inlet, body::InFlight, publish::PublishEndpoint, pull::Pulls, push::PushEndpoint},
    limits::rate::RateLimit,
    telemetry::{metrics::Metrics, throttle::LogThrottle, traces::Traces},
};

/// Makes the push endpoint. `verifier` is `None` when pushes need no token.
pub(super) fn push_endpoint(
    config: &Config,
    backplane: &Backplane,
    metrics: &Metrics,
    in_flight: &Arc<InFlight>,
    verifier: Option<Arc<Verifier>>,
) -> PushEndpoint {
    let failures = metrics.limit("push-failures-per-address");
    PushEndpoint {
        is_off: config.push_auth == PushAuth::Off,
        inlet: Arc::new(policy(config, backplane, metrics, &metrics.pushes)),
        verifier,
        in_flight: Arc::clone(in_flight),
        body_timeout: config.body_timeout,
        metrics: metrics.clone(),
        failures: RateLimit::new(config.push_failures_per_address, failures),
        trusted_proxies: config.trusted_proxies,
        denied_log: LogThrottle::default(),
    }
}

/// Makes the publish endpoint. `check` verifies the tokens of publishers; it is `None` when neither
/// they nor readers need a token.
pub(super) fn publish_endpoint(
    config: &Config,
    backplane: &Backplane,
    metrics: &Metrics,
    in_flight: &Arc<InFlight>,
    check: Option<&Arc<TokenCheck>>,
) -> PublishEndpoint {
    let limit = |flag| metrics.limit(flag);
    PublishEndpoint {
        inlet: policy(config, backplane, metrics, &metrics.publishes),
        access: match (&config.publish_auth, check) {
            (PublishAuth::None, _) => Some(PublishAccess::Anyone),
            (PublishAuth::Jwt(_), Some(check)) => Some(PublishAccess::Token(Arc::clone(check))),
            _ => None,
        },
        in_flight: Arc::clone(in_flight),
        body_timeout: config.body_timeout,
        by_subject: RateLimit::new(config.publishes_per_subject, limit("publishes-per-subject")),
        by_address: RateLimit::new(config.publishes_per_address, limit("publishes-per-address")),
        trusted_proxies: config.trusted_proxies,
        metrics: metrics.clone(),
        denied_log: LogThrottle::default(),
    }
}

/// Starts the tasks that pull the subscriptions of `--pull`.
pub(super) fn pulls(
    config: &Config,
    backplane: &Backplane,
    metrics: &Metrics,
    in_flight: &Arc<InFlight>,
    tasks: &mut JoinSet<()>,
) -> Pulls {
    let inlet = policy(config, backplane, metrics, &metrics.pull.messages);
    let leave_within = config.drain_delay + config.drain_timeout;
    Pulls::start(&config.pull, inlet, in_flight, metrics, leave_within, tasks)
}

/// Makes the policy of one inlet.
fn policy(
    config: &Config,
    backplane: &Backplane,
    metrics: &Metrics,
    outcomes: &IntCounterVec,
) -> Inlet {
    let traces = Arc::new(Traces::new(config.traces.project.clone()));
    Inlet::new(backplane.clone(), config.topics.clone(), config.poison, metrics, outcomes)
        .with_traces(traces)
}
