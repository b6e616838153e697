//! Prometheus metrics. Every label has a closed set of values: no value comes from a client.

use std::collections::BTreeMap;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// Counters and histograms of the gateway. The gauges of the hub are not here: `server::health`
/// reads them from the hub for each scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Registry that contains all of these metrics.
    pub registry: Registry,
    /// `stream_events_pushes_total{outcome}`: answered pushes. Each push is counted once.
    pub pushes: IntCounterVec,
    /// Metrics of pulled subscriptions.
    pub pull: PullMetrics,
    /// `stream_events_publishes_total{outcome}`: messages that clients published and that the
    /// backplane was given, and refused requests to publish.
    pub publishes: IntCounterVec,
    /// `stream_events_poison_total{reason}`: messages that can never be used. They are acked and
    /// dropped, or refused with `--poison nack`.
    pub poison: IntCounterVec,
    /// `stream_events_push_tokens_total{result}`: tokens of pushes: `verified`, `remembered`, or
    /// the reason for which a token was refused.
    pub push_tokens: IntCounterVec,
    /// Counter of `push_tokens` with the result `remembered`.
    pub push_tokens_remembered: IntCounter,
    /// `stream_events_push_keys_fetches_total{result}`: fetches of the key set for push tokens.
    pub key_fetches: IntCounterVec,
    /// `stream_events_read_keys_fetches_total{result}`: fetches of the key set for readers' tokens.
    pub read_key_fetches: IntCounterVec,
    /// `stream_events_events_delivered_total`: events written to the socket of a stream. An event
    /// is counted once for each stream.
    pub delivered: IntCounter,
    /// `stream_events_streams_opened_total`: opened streams.
    pub streams_opened: IntCounter,
    /// `stream_events_streams_by_outlet{outlet}`: open streams, by [`Format::outlet`].
    ///
    /// [`Format::outlet`]: crate::model::encode::Format::outlet
    pub streams_by_outlet: IntGaugeVec,
    /// `stream_events_streams_refused_total{reason}`: refused streams.
    pub streams_refused: IntCounterVec,
    /// `stream_events_websockets_opened_total`: accepted WebSockets.
    pub websockets_opened: IntCounter,
    /// `stream_events_websockets_closed_total{code}`: WebSockets that the gateway refused or
    /// closed, by the code of the close frame. Those whose streams have ended are not counted.
    pub websockets_closed: IntCounterVec,
    /// `stream_events_grpc_calls_total{method,code}`: ended calls of gRPC and gRPC-Web, by their
    /// method and the number of their status.
    pub grpc_calls: IntCounterVec,
    /// `stream_events_limits_met_total{limit}`: requests and connections refused by a limit, by the
    /// name of the limit's flag.
    pub limits_met: IntCounterVec,
    /// `stream_events_streams_ended_total{reason}`: ended streams: `max-age`, `draining`, `expired`
    /// (the reader's token), `client` (the reader disconnected), `stalled`, `fell-behind`,
    /// `poll` (the poll was answered).
    pub streams_ended: IntCounterVec,
    /// `stream_events_events_folded_total`: events that slow readers did not get, since a newer one
    /// of the same ordering key replaced each of them.
    pub folded: IntCounter,
    /// `stream_events_gaps_total{reason}`: gaps that were sent to readers.
    pub gaps: IntCounterVec,
    /// `stream_events_latency_seconds`: time from Pub/Sub's publish time to the socket of a stream.
    /// Observed once for each batch that a stream receives, for the newest event of the batch.
    pub latency: Histogram,
    /// `stream_events_push_to_ring_seconds`: time from the head of a push until its message is
    /// stored.
    pub push_to_ring: Histogram,
    /// `stream_events_ring_to_socket_seconds`: time from the storing of an event, which is the time
    /// in its id, until it is written to a socket. Observed for the newest event of a batch: once
    /// for a write to one stream, and once for a write to many streams of a broadcast.
    pub ring_to_socket: Histogram,
    /// `stream_events_spans_total{outcome}`: spans for the collector (`--otlp-endpoint`):
    /// `exported`, `queue-full` (dropped) or `export-failed` (dropped).
    pub spans: IntCounterVec,
    /// `stream_events_proxy_headers_refused_total`: connections that began without a valid PROXY
    /// protocol header.
    pub proxy_refused: IntCounter,
    /// `stream_events_log_append_seconds`: time from the request of a push to the answer of Redis,
    /// its time in the queue included.
    pub log_append: Histogram,
    /// `stream_events_log_connects_total{connection}`: attempts to connect to Redis.
    pub log_connects: IntCounterVec,
    /// `stream_events_log_breaks_total`: positions at which the log may have lost entries.
    pub log_breaks: IntCounter,
}

/// Metrics of the subscriptions of `--pull`.
#[derive(Debug, Clone)]
pub struct PullMetrics {
    /// `stream_events_pulls_total{outcome}`: messages that the policy decided about. A message that
    /// the log does not confirm is counted at each attempt.
    pub messages: IntCounterVec,
    /// `stream_events_pull_up{subscription}`: 1 while the stream of the subscription is open, and 0
    /// otherwise.
    pub up: IntGaugeVec,
    /// `stream_events_pull_reconnects_total{reason}`: streams that could not be opened, or that
    /// ended.
    pub reconnects: IntCounterVec,
    /// `stream_events_pull_confirmed_acks_total{result}`: acks on subscriptions with exactly-once
    /// delivery, where Pub/Sub answers acks: `confirmed` or `failed`. A message whose ack failed
    /// comes again, as a duplicate.
    pub acks: IntCounterVec,
}

/// Upper bounds of the latency buckets in seconds: from a push within one machine to a backlog of a
/// quarter of an hour.
const LATENCY_BUCKETS: [f64; 15] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 900.0];

/// Upper bounds of the buckets of `stream_events_push_to_ring_seconds`. The lowest are for pushes
/// that are stored in this process, the others for pushes that wait for their body or for Redis.
const PUSH_BUCKETS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Upper bounds of the buckets of `stream_events_ring_to_socket_seconds`, whose resolution is that
/// of an id: 1 ms.
const SOCKET_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];

/// Flags of the limits in `stream_events_limits_met_total`: limits of connections and requests.
/// `stream_events_streams_refused_total` counts those of streams.
const LIMITS: [&str; 16] = [
    "requests-per-address",
    "publishes-per-subject",
    "publishes-per-address",
    "push-failures-per-address",
    "tickets-per-subject",
    "connections-per-address",
    "idle-connections-max",
    "topics-per-stream",
    "followed-bytes-max",
    "filters-max",
    "head-bytes-max",
    "query-bytes-max",
    "http2-streams-max",
    "handshake-timeout",
    "header-timeout",
    "body-timeout",
];

/// Outlets in `stream_events_streams_by_outlet`.
const OUTLETS: [&str; 5] = ["sse", "ndjson", "poll", "websocket", "grpc"];

impl Metrics {
    /// Returns the number of open streams of each outlet that has any.
    pub fn open_streams_by_outlet(&self) -> BTreeMap<&'static str, i64> {
        let count = |outlet| self.streams_by_outlet.with_label_values(&[outlet]).get();
        OUTLETS
            .map(|outlet| (outlet, count(outlet)))
            .into_iter()
            .filter(|(_, open)| 0 < *open)
            .collect()
    }

    /// Creates all metrics in a new registry, so that two gateways in one process do not share
    /// counters.
    ///
    /// # Errors
    /// Fails for an invalid name. `prometheus` checks names at run time; the names below are valid.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let pushes = counters(&registry, "pushes_total", "Pushes by outcome.", "outcome")?;
        let push_tokens = counters(&registry, "push_tokens_total", "Push tokens.", "result")?;
        let [push_to_ring, ring_to_socket, latency, log_append] = times(&registry)?;
        let (websockets_opened, websockets_closed) = websockets(&registry)?;
        Ok(Self {
            pushes,
            pull: PullMetrics::new(&registry)?,
            publishes: counters(&registry, "publishes_total", "Publishes by outcome.", "outcome")?,
            poison: counters(&registry, "poison_total", "Poison messages.", "reason")?,
            push_tokens_remembered: push_tokens.with_label_values(&["remembered"]),
            push_tokens,
            key_fetches: counters(
                &registry,
                "push_keys_fetches_total",
                "Fetches of the keys for push tokens.",
                "result",
            )?,
            read_key_fetches: counters(
                &registry,
                "read_keys_fetches_total",
                "Fetches of the keys for readers' tokens.",
                "result",
            )?,
            delivered: counter(&registry, "events_delivered_total", "Events written to streams.")?,
            streams_opened: counter(&registry, "streams_opened_total", "Streams opened.")?,
            streams_by_outlet: streams_by_outlet(&registry)?,
            streams_refused: counters(
                &registry,
                "streams_refused_total",
                "Streams refused.",
                "reason",
            )?,
            websockets_opened,
            websockets_closed,
            grpc_calls: grpc_calls(&registry)?,
            limits_met: limits_met(&registry)?,
            streams_ended: counters(&registry, "streams_ended_total", "Streams ended.", "reason")?,
            folded: counter(
                &registry,
                "events_folded_total",
                "Events that newer ones of their key replaced for slow readers.",
            )?,
            gaps: counters(&registry, "gaps_total", "Gaps sent to readers.", "reason")?,
            latency,
            push_to_ring,
            spans: counters(&registry, "spans_total", "Spans by outcome.", "outcome")?,
            ring_to_socket,
            proxy_refused: counter(
                &registry,
                "proxy_headers_refused_total",
                "Connections without a valid PROXY protocol header.",
            )?,
            log_append,
            log_connects: counters(
                &registry,
                "log_connects_total",
                "Attempts to connect to Redis, to append (push) and to read the log (tail).",
                "connection",
            )?,
            log_breaks: counter(
                &registry,
                "log_breaks_total",
                "Positions at which the log may have lost entries.",
            )?,
            registry,
        })
    }

    /// Returns the counter of [`Self::limits_met`] for a flag, which must be in `LIMITS`.
    pub fn limit(&self, flag: &str) -> IntCounter {
        debug_assert!(LIMITS.contains(&flag), "{flag}");
        self.limits_met.with_label_values(&[flag])
    }
}

impl PullMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "1 while the stream of a pulled subscription is open.";
        let up = IntGaugeVec::new(Opts::new("stream_events_pull_up", help), &["subscription"])?;
        let ended = "Streams of pulled subscriptions that could not be opened, or that ended.";
        let acks = "Acks of pulled messages that Pub/Sub answers (exactly-once delivery).";
        Ok(Self {
            messages: counters(registry, "pulls_total", "Pulled messages by outcome.", "outcome")?,
            up: register(registry, up)?,
            reconnects: counters(registry, "pull_reconnects_total", ended, "reason")?,
            acks: counters(registry, "pull_confirmed_acks_total", acks, "result")?,
        })
    }
}

/// Creates the histograms: from a push to the ring, from the ring to a socket, from Pub/Sub to a
/// socket, and of appends to Redis.
fn times(registry: &Registry) -> prometheus::Result<[Histogram; 4]> {
    let create = |name, help, buckets| histogram(registry, name, help, buckets);
    let stored = "From the head of a push until its message is stored.";
    let written = "From the time of an event's id to a stream's socket.";
    let late = "From Pub/Sub's publish time to a stream's socket.";
    let appended = "From the request of a push to the answer of Redis.";
    Ok([
        create("push_to_ring_seconds", stored, &PUSH_BUCKETS[..])?,
        create("ring_to_socket_seconds", written, &SOCKET_BUCKETS[..])?,
        create("latency_seconds", late, &LATENCY_BUCKETS[..])?,
        create("log_append_seconds", appended, &LATENCY_BUCKETS[..])?,
    ])
}

/// Creates the gauges of open streams by outlet, each with 0 before its first stream.
fn streams_by_outlet(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let opts = Opts::new("stream_events_streams_by_outlet", "Streams that are open, by outlet.");
    let streams = register(registry, IntGaugeVec::new(opts, &["outlet"])?)?;
    for outlet in OUTLETS {
        let _zero = streams.with_label_values(&[outlet]);
    }
    Ok(streams)
}

/// Creates the counters of WebSockets.
fn websockets(registry: &Registry) -> prometheus::Result<(IntCounter, IntCounterVec)> {
    let opened = counter(registry, "websockets_opened_total", "WebSockets accepted.")?;
    let help = "WebSockets refused or closed by the gateway.";
    Ok((opened, counters(registry, "websockets_closed_total", help, "code")?))
}

/// Creates the counters of calls of gRPC.
fn grpc_calls(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "Ended calls of gRPC by method and status.";
    let options = Opts::new("stream_events_grpc_calls_total", help);
    register(registry, IntCounterVec::new(options, &["method", "code"])?)
}

/// Creates the counters of all [`LIMITS`], so that each is exposed with 0 before its first use.
fn limits_met(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let limits_met = counters(
        registry,
        "limits_met_total",
        "Requests and connections refused by a limit, by the name of its flag.",
        "limit",
    )?;
    for limit in LIMITS {
        let _zero = limits_met.with_label_values(&[limit]);
    }
    Ok(limits_met)
}

/// Registers the counter `stream_events_{name}`.
fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(format!("stream_events_{name}"), help)?)
}

/// Registers the counters `stream_events_{name}`, one for each value of `label`.
fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(format!("stream_events_{name}"), help);
    register(registry, IntCounterVec::new(opts, &[label])?)
}

/// Registers the histogram `stream_events_{name}` with these upper bounds of its buckets.
fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::new(format!("stream_events_{name}"), help);
    register(registry, Histogram::with_opts(opts.buckets(buckets.to_vec()))?)
}

/// Adds a collector to the registry and returns it.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
