//! What is counted, by name. Every label has a closed set of values: none comes from outside.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, core::Collector,
};

/// The gateway's counters. Gauges of the hub are read from it when they are asked for (`ops`).
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where they are gathered from.
    pub registry: Registry,
    /// `stream_events_pushes_total{outcome}`: every answered push once.
    pub pushes: IntCounterVec,
    /// Of these, `stored`: each look-up by label takes as long as a good part of a push.
    pub pushes_stored: IntCounter,
    /// `stream_events_poison_total{reason}`: acked and dropped, or refused with `--poison nack`.
    pub poison: IntCounterVec,
    /// `stream_events_push_tokens_total{result}`: `verified`, `remembered`, or why
    /// a token was refused.
    pub push_tokens: IntCounterVec,
    /// Of these, `remembered`.
    pub push_tokens_remembered: IntCounter,
    /// `stream_events_push_keys_fetches_total{result}`: fetches of the issuer's key set.
    pub key_fetches: IntCounterVec,
    /// `stream_events_read_keys_fetches_total{result}`: fetches of the key set for readers' tokens.
    pub read_key_fetches: IntCounterVec,
    /// `stream_events_events_delivered_total`: events handed to a stream's socket, per stream.
    pub delivered: IntCounter,
    /// `stream_events_streams_opened_total`.
    pub streams_opened: IntCounter,
    /// `stream_events_streams_refused_total{reason}`.
    pub streams_refused: IntCounterVec,
    /// `stream_events_limits_met_total{limit}`: requests and connections that a limit was for, by
    /// the name of its flag.
    pub limits_met: IntCounterVec,
    /// `stream_events_streams_ended_total{reason}`: why a stream ended: `max-age`, `draining`,
    /// `client` when its reader left, `stalled`, `fell-behind`.
    pub streams_ended: IntCounterVec,
    /// `stream_events_gaps_total{reason}`: gaps told to readers.
    pub gaps: IntCounterVec,
    /// `stream_events_latency_seconds`: from Pub/Sub's publish time to a stream's socket. One
    /// observation for each batch that a stream is given, of the newest event in it.
    pub latency: Histogram,
    /// `stream_events_proxy_headers_refused_total`: connections that began without a valid header
    /// of the PROXY protocol.
    pub proxy_refused: IntCounter,
    /// `stream_events_log_append_seconds`: from asking Redis to its answer.
    pub log_append: Histogram,
    /// `stream_events_log_connects_total{connection}`: attempts to connect to Redis.
    pub log_connects: IntCounterVec,
    /// `stream_events_log_breaks_total`: where the log may have forgotten something.
    pub log_breaks: IntCounter,
}

/// Seconds, from a push inside one machine to a backlog of a quarter of an hour.
const LATENCY_BUCKETS: [f64; 15] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 900.0];

/// Limits that are met by what is no stream, or not yet one. (Those of streams:
/// `stream_events_streams_refused_total`.)
const LIMITS: [&str; 13] = [
    "requests-per-address",
    "push-failures-per-address",
    "tickets-per-subject",
    "connections-per-address",
    "idle-connections-max",
    "topics-per-stream",
    "followed-bytes-max",
    "head-bytes-max",
    "query-bytes-max",
    "http2-streams-max",
    "handshake-timeout",
    "header-timeout",
    "body-timeout",
];

impl Metrics {
    /// A registry of its own, so that two gateways in one process do not share their numbers.
    ///
    /// # Errors
    /// Never for the names below: prometheus checks them when it runs.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let pushes = counters(&registry, "pushes_total", "Pushes by outcome.", "outcome")?;
        let push_tokens = counters(&registry, "push_tokens_total", "Push tokens.", "result")?;
        let metrics = Self {
            pushes_stored: pushes.with_label_values(&["stored"]),
            pushes,
            poison: counters(&registry, "poison_total", "Poison messages.", "reason")?,
            push_tokens_remembered: push_tokens.with_label_values(&["remembered"]),
            push_tokens,
            key_fetches: counters(
                &registry,
                "push_keys_fetches_total",
                "Fetches of the push token issuer's keys.",
                "result",
            )?,
            read_key_fetches: counters(
                &registry,
                "read_keys_fetches_total",
                "Fetches of the keys for readers' tokens.",
                "result",
            )?,
            delivered: counter(&registry, "events_delivered_total", "Events given to streams.")?,
            streams_opened: counter(&registry, "streams_opened_total", "Streams opened.")?,
            streams_refused: counters(
                &registry,
                "streams_refused_total",
                "Streams refused for now.",
                "reason",
            )?,
            limits_met: limits_met(&registry)?,
            streams_ended: counters(&registry, "streams_ended_total", "Streams ended.", "reason")?,
            gaps: counters(&registry, "gaps_total", "Gaps told to readers.", "reason")?,
            latency: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "stream_events_latency_seconds",
                        "From Pub/Sub's publish time to a stream's socket.",
                    )
                    .buckets(LATENCY_BUCKETS.to_vec()),
                )?,
            )?,
            proxy_refused: counter(&registry, "proxy_headers_refused_total", "Bad PROXY headers.")?,
            log_append: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "stream_events_log_append_seconds",
                        "From asking Redis to store a message to its answer.",
                    )
                    .buckets(LATENCY_BUCKETS.to_vec()),
                )?,
            )?,
            log_connects: counters(
                &registry,
                "log_connects_total",
                "Attempts to connect to Redis, for pushes and for reading the log.",
                "connection",
            )?,
            log_breaks: counter(
                &registry,
                "log_breaks_total",
                "Places where the log may have forgotten something.",
            )?,
            registry,
        };
        Ok(metrics)
    }

    /// Of [`Self::limits_met`], that of a flag.
    pub fn limit(&self, flag: &str) -> IntCounter {
        debug_assert!(LIMITS.contains(&flag), "{flag}");
        self.limits_met.with_label_values(&[flag])
    }
}

/// All of them, so that each is there before it is met.
fn limits_met(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let limits_met =
        counters(registry, "limits_met_total", "Limits met, by the flag's name.", "limit")?;
    for limit in LIMITS {
        let _none_yet = limits_met.with_label_values(&[limit]);
    }
    Ok(limits_met)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(format!("stream_events_{name}"), help)?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(format!("stream_events_{name}"), help);
    register(registry, IntCounterVec::new(opts, &[label])?)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
