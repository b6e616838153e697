//! What is measured, and which servers are in it.

use crate::compare::servers::Server;

/// One comparison.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub figures: &'static [Figure],
    pub entries: Vec<Entry>,
}

/// One line of it: a server under a load.
#[derive(Debug)]
pub struct Entry {
    pub label: String,
    pub server: Server,
    /// The arguments of `load`.
    pub load: String,
    /// Another line, whose cost per message is taken off this one's.
    pub minus: Option<String>,
}

/// One number of a report.
#[derive(Debug)]
pub struct Figure {
    /// As `load` calls it.
    pub key: &'static str,
    pub about: &'static str,
    /// The line with which others are compared.
    pub base: &'static str,
    pub more_is_better: bool,
}

const fn less(key: &'static str, about: &'static str, base: &'static str) -> Figure {
    Figure { key, about, base, more_is_better: false }
}

const fn more(key: &'static str, about: &'static str, base: &'static str) -> Figure {
    Figure { key, about, base, more_is_better: true }
}

const FIXED: &[Figure] = &[
    less("server_us_per_delivery", "CPU per delivery, µs", "floor"),
    less("p50_ms", "latency p50, ms", "floor"),
    less("p99_ms", "latency p99, ms", "floor"),
    less("p999_ms", "latency p99.9, ms", "floor"),
];
const CLOSED: &[Figure] = &[
    less("server_us_per_delivery", "CPU per delivery, µs", "floor"),
    more("deliveries_per_s", "deliveries per second", "nchan"),
    less("p99_ms", "latency p99, ms", "floor"),
];
const INGEST: &[Figure] = &[
    more("pushes_per_s", "pushes per second", "nchan"),
    less("server_us_per_message", "CPU per push, µs", "nchan"),
];
const LOG: &[Figure] = &[
    more("pushes_per_s", "pushes per second", "gateway"),
    less("server_us_per_message", "CPU of the gateway per push, µs", "gateway"),
    less("p50_ms", "latency p50, ms", "gateway"),
];
const REPLAY: &[Figure] = &[less("server_us_per_stream", "CPU per stream, µs", "floor")];
const CHURN: &[Figure] = &[
    less("server_us_per_connection", "CPU per connection, µs", "floor"),
    less("sockets_left", "sockets left after 1 s", "floor"),
];
const IDLE: &[Figure] = &[
    less("pss_per_stream", "memory per stream (PSS), bytes", "naive"),
    less("private_per_stream", "private memory per stream, bytes", "naive"),
    less("sockets_left", "sockets left after 2 s", "naive"),
];
const STALLED: &[Figure] = &[
    less("p50_ms", "latency of the others p50, ms", "gateway, none stalled"),
    less("p99_ms", "latency of the others p99, ms", "gateway, none stalled"),
    less("kernel_bytes_max", "kernel memory of a stalled socket, bytes", "floor"),
    less("cut_after_s", "the last was cut after, s", "floor"),
];
const WORKERS: &[Figure] = &[less("server_us_per_delivery", "CPU per delivery, µs", "gateway")];
const TOPICS: &[Figure] = &[
    less("net_us_per_delivery", "CPU per delivery less that of its push, µs", "one topic"),
    less("server_us_per_message", "CPU per message, µs", "one topic"),
];
const FILTER: &[Figure] = &[
    less("server_us_per_delivery", "CPU per delivery, µs", "no filter"),
    less("p99_ms", "latency p99, ms", "no filter"),
];

const ALL: &[Server] = &[Server::Gateway, Server::Floor, Server::Nchan, Server::Naive];
const ALL_AND_LAB: &[Server] =
    &[Server::Gateway, Server::Floor, Server::Nchan, Server::Naive, Server::NaiveLab];
const INGESTING: &[Server] = &[Server::Gateway, Server::Nchan, Server::Naive, Server::Floor];
const VERIFYING: &[Server] = &[Server::GatewayToken, Server::Nchan, Server::Naive];
const IDLING: &[Server] =
    &[Server::Gateway, Server::Naive, Server::NaiveLab, Server::Nchan, Server::Floor];

/// All of them; `quick` are fewer, smaller and shorter.
pub fn all(quick: bool) -> Vec<Scenario> {
    if quick {
        in_quick()
    } else {
        [fan_out(), others(), of_gateway()].into_iter().flatten().collect()
    }
}

fn scenario(
    (name, about): (&'static str, &'static str),
    figures: &'static [Figure],
    servers: &[Server],
    load: &str,
) -> Scenario {
    let entry = |server: &Server| entry(server.name(), *server, load);
    Scenario { name, about, figures, entries: servers.iter().map(entry).collect() }
}

fn entry(label: &str, server: Server, load: &str) -> Entry {
    Entry { label: label.to_owned(), server, load: load.to_owned(), minus: None }
}

fn in_quick() -> Vec<Scenario> {
    let load = |text: &str| text.to_owned();
    let of = |name, figures, servers, text: &str| {
        scenario((name, "smoke test"), figures, servers, &load(text))
    };
    let mut all = vec![
        of("fixed-100", FIXED, ALL_AND_LAB, "fanout --streams 100 --rate 200 --seconds 1"),
        of("closed-100", CLOSED, ALL, "fanout --streams 100 --closed 64 --seconds 1"),
        of("ingest", INGEST, INGESTING, "ingest --seconds 0.5"),
        of("ingest-token", INGEST, VERIFYING, "ingest --seconds 0.5"),
        of("replay", REPLAY, ALL, "replay --streams 100 --events 100"),
        of("churn", CHURN, ALL, "churn --streams 100 --rounds 2"),
        of("idle-1000", IDLE, IDLING, "idle --streams 200"),
    ];
    all.push(stalled("--seconds 2"));
    all.push(filter("filter-10000", "smoke test", "fanout --streams 100 --rate 200 --seconds 1"));
    all.push(topics("topics-1000x1", "many topics with one stream each", [1_000, 1_000, 1], 1.0));
    all
}

fn fan_out() -> Vec<Scenario> {
    vec![
        scenario(
            ("fixed-100", "100 streams, 500 messages/s of 200 B"),
            FIXED,
            ALL_AND_LAB,
            "fanout --streams 100 --rate 500",
        ),
        scenario(
            ("fixed-1000", "1,000 streams, 50 messages/s of 200 B"),
            FIXED,
            ALL_AND_LAB,
            "fanout --streams 1000 --rate 50",
        ),
        scenario(
            ("fixed-5000", "5,000 streams, 10 messages/s of 200 B"),
            FIXED,
            ALL_AND_LAB,
            "fanout --streams 5000 --rate 10",
        ),
        scenario(
            ("fixed-1000-1k", "1,000 streams, 50 messages/s of 1 KiB"),
            FIXED,
            ALL,
            "--size 1024 fanout --streams 1000 --rate 50",
        ),
        scenario(
            ("fixed-1000-100topics", "1,000 streams on 100 topics, 5,000 messages/s of 200 B"),
            FIXED,
            ALL,
            "fanout --streams 1000 --topics 100 --rate 5000",
        ),
        scenario(
            ("closed-100", "100 streams, 64 messages on their way"),
            CLOSED,
            ALL,
            "fanout --streams 100 --closed 64",
        ),
        scenario(
            ("closed-1000", "1,000 streams, 64 messages on their way"),
            CLOSED,
            ALL_AND_LAB,
            "fanout --streams 1000 --closed 64",
        ),
        scenario(
            ("closed-5000", "5,000 streams, 64 messages on their way"),
            CLOSED,
            ALL,
            "fanout --streams 5000 --closed 64",
        ),
    ]
}

fn others() -> Vec<Scenario> {
    vec![
        scenario(("ingest", "pushes of 200 B, no stream"), INGEST, INGESTING, "ingest"),
        scenario(
            ("ingest-1k", "pushes of 1 KiB, no stream"),
            INGEST,
            INGESTING,
            "--size 1024 ingest",
        ),
        scenario(
            ("ingest-token", "pushes of 200 B, a token on each for the gateway"),
            INGEST,
            VERIFYING,
            "ingest",
        ),
        scenario(
            ("ingest-redis", "pushes of 200 B, 16 at a time, stored in Redis"),
            LOG,
            &[Server::Gateway, Server::GatewayRedis],
            "ingest",
        ),
        scenario(
            ("latency-redis", "one stream, 200 messages/s of 200 B, through Redis"),
            LOG,
            &[Server::Gateway, Server::GatewayRedis],
            "fanout --streams 1 --rate 200",
        ),
        scenario(("replay", "1,000 streams get 100 events each at once"), REPLAY, ALL, "replay"),
        scenario(
            ("churn", "1,000 streams come and go 5 times"),
            CHURN,
            ALL_AND_LAB,
            "churn --streams 1000 --rounds 5",
        ),
        scenario(("idle-1000", "1,000 idle streams"), IDLE, IDLING, "idle --streams 1000"),
        scenario(("idle-5000", "5,000 idle streams"), IDLE, IDLING, "idle --streams 5000"),
        scenario(("idle-15000", "15,000 idle streams"), IDLE, IDLING, "idle --streams 15000"),
        stalled("--seconds 8"),
    ]
}

/// Each server with readers that stop, and the gateway and the floor without. Only the gateway's
/// are waited for until they are cut: the others cut nobody by time.
fn stalled(time: &str) -> Scenario {
    let none = format!("--size 4096 stalled --stalled 0 {time}");
    let some = format!("--size 4096 stalled {time}");
    let wait = if time.ends_with(" 8") { format!("{some} --cut-wait 35") } else { some.clone() };
    Scenario {
        name: "stalled",
        about: "4 of 40 streams stop reading, 400 messages/s of 4 KiB",
        figures: STALLED,
        entries: vec![
            entry("gateway, none stalled", Server::Gateway, &none),
            entry("gateway", Server::Gateway, &wait),
            entry("floor, none stalled", Server::Floor, &none),
            entry("floor", Server::Floor, &some),
            entry("nchan", Server::Nchan, &some),
            entry("naive", Server::Naive, &some),
        ],
    }
}

/// The gateway compared with itself.
fn of_gateway() -> Vec<Scenario> {
    let workers = |name, about, load: &str| {
        scenario((name, about), WORKERS, &[Server::Gateway, Server::Gateway2], load)
    };
    vec![
        workers(
            "two-workers",
            "two workers against one, 1,000 streams, 50 messages/s",
            "fanout --streams 1000 --rate 50",
        ),
        workers(
            "two-workers-closed",
            "two workers against one, 1,000 streams, 64 messages on their way",
            "fanout --streams 1000 --closed 64",
        ),
        filter(
            "filter-10000",
            "10,000 streams with one filter of four conditions, 5 messages/s of 200 B",
            "fanout --streams 10000 --rate 5 --seconds 10",
        ),
        topics("topics-10000x1", "10,000 topics with one stream each", [10_000, 10_000, 1], 5.0),
        topics("stream-of-1000-topics", "one stream on 1,000 topics", [1, 1_000, 1_000], 5.0),
    ]
}

/// Compares streams with one filter, which shows all events, to streams without a filter.
fn filter(name: &'static str, about: &'static str, load: &str) -> Scenario {
    // All conditions are true for each message, so that the gateway checks all of them.
    const CONDITIONS: [&str; 4] = [
        "attributes:order",
        "attributes.region=%22eu%22",
        "attributes.region!=%22us%22",
        "hasPrefix(attributes.kind,%22order%22)",
    ];
    let filter = CONDITIONS.join("%20AND%20");
    let attributes = r#"--attributes {"region":"eu","kind":"order.made","order":"1"}"#;
    let line = |label, filter: &str| {
        entry(label, Server::Gateway, &format!("{attributes}{filter} {load}"))
    };
    let entries = vec![line("one filter", &format!(" --filter {filter}")), line("no filter", "")];
    Scenario { name, about, figures: FILTER, entries }
}

/// Deliveries per second: enough for their cost to stand out from that of the pushes.
const TOPICS_RATE: usize = 20_000;

/// Many topics against one topic with as many streams, at the same rate of deliveries; and both
/// without streams, to know what the pushes cost. `[streams, topics, topics per stream]`.
fn topics(name: &'static str, about: &'static str, many: [usize; 3], seconds: f64) -> Scenario {
    let [streams, ..] = many;
    let load = |[streams, topics, per_stream]: [usize; 3], rate: usize| {
        format!(
            "fanout --streams {streams} --topics {topics} --topics-per-stream {per_stream} \
             --rate {rate} --seconds {seconds}"
        )
    };
    let line = |label: &str, minus: Option<&str>, load: String| Entry {
        minus: minus.map(str::to_owned),
        ..entry(label, Server::Gateway, &load)
    };
    let without = |[_, topics, per_stream]: [usize; 3]| [0, topics, per_stream];
    let (one, rate) = ([streams, 1, 1], TOPICS_RATE / streams);
    Scenario {
        name,
        about,
        figures: TOPICS,
        entries: vec![
            line("many topics", Some("many topics, pushes"), load(many, TOPICS_RATE)),
            line("many topics, pushes", None, load(without(many), TOPICS_RATE)),
            line("one topic", Some("one topic, pushes"), load(one, rate)),
            line("one topic, pushes", None, load(without(one), rate)),
        ],
    }
}

impl Scenario {
    /// A line for `--list`.
    pub fn print(&self) {
        let labels: Vec<_> = self.entries.iter().map(|entry| entry.label.as_str()).collect();
        println!("{:<24} {}: {}", self.name, self.about, labels.join("; "));
    }
}
