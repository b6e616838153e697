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

/// Parts from which inlets are made.
pub(super) struct InletParts<'a> {
    pub(super) config: &'a Config,
    pub(super) backplane: &'a Backplane,
    pub(super) metrics: &'a Metrics,
    pub(super) traces: &'a Arc<Traces>,
    pub(super) in_flight: &'a Arc<InFlight>,
}

impl InletParts<'_> {
    /// Makes the push endpoint. `verifier` is `None` when pushes need no token.
    pub(super) fn push_endpoint(&self, verifier: Option<Arc<Verifier>>) -> PushEndpoint {
        let Self { config, metrics, in_flight, .. } = self;
        let failures = metrics.limit("push-failures-per-address");
        PushEndpoint {
            is_off: config.push_auth == PushAuth::Off,
            inlet: Arc::new(self.policy(&metrics.pushes)),
            verifier,
            in_flight: Arc::clone(in_flight),
            body_timeout: config.body_timeout,
            metrics: (*metrics).clone(),
            failures: RateLimit::new(config.push_failures_per_address, failures),
            trusted_proxies: config.trusted_proxies,
            denied_log: LogThrottle::default(),
        }
    }

    /// Makes the publish endpoint. `check` verifies the tokens of publishers; it is `None` when
    /// neither they nor readers need a token.
    pub(super) fn publish_endpoint(&self, check: Option<&Arc<TokenCheck>>) -> PublishEndpoint {
        let Self { config, metrics, in_flight, .. } = self;
        let by_subject = metrics.limit("publishes-per-subject");
        let by_address = metrics.limit("publishes-per-address");
        PublishEndpoint {
            inlet: self.policy(&metrics.publishes),
            access: match (&config.publish_auth, check) {
                (PublishAuth::None, _) => Some(PublishAccess::Anyone),
                (PublishAuth::Jwt(_), Some(check)) => Some(PublishAccess::Token(Arc::clone(check))),
                _ => None,
            },
            in_flight: Arc::clone(in_flight),
            body_timeout: config.body_timeout,
            by_subject: RateLimit::new(config.publishes_per_subject, by_subject),
            by_address: RateLimit::new(config.publishes_per_address, by_address),
            trusted_proxies: config.trusted_proxies,
            metrics: (*metrics).clone(),
            denied_log: LogThrottle::default(),
        }
    }

    /// Starts the tasks that pull the subscriptions of `--pull`.
    pub(super) fn pulls(&self, tasks: &mut JoinSet<()>) -> Pulls {
        let Self { config, metrics, in_flight, .. } = self;
        let inlet = self.policy(&metrics.pull.messages);
        let leave_within = config.drain_delay + config.drain_timeout;
        Pulls::start(&config.pull, inlet, in_flight, metrics, leave_within, tasks)
    }

    /// Makes the policy of one inlet.
    fn policy(&self, outcomes: &IntCounterVec) -> Inlet {
        let Self { config, backplane, metrics, traces, .. } = self;
        let topics = config.topics.clone();
        Inlet::new((*backplane).clone(), topics, config.poison, metrics, outcomes)
            .with_traces(Arc::clone(traces))
    }
}
