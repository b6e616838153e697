//! A gateway to be attacked: a process of its own, whose memory can be seen.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    eventually,
    gateway::{message, metric},
    http1::{self, Answer, EventSource},
    process::{Process, stream_events},
};

pub struct Victim {
    process: Process,
    pub address: SocketAddr,
    pub ops: SocketAddr,
    /// What a publisher sends with each push.
    pub authorization: Option<String>,
    /// What a reader sends.
    pub reader: Option<String>,
    /// Memory of its own, in KiB, when nothing was going on.
    pub calm_kib: usize,
}

/// A normal client gets an event within this after it was published.
const SOON: Duration = Duration::from_secs(1);
/// What a gateway may keep after an attack, beyond what it had before: what the allocator has not given
/// back, since something small stands behind it, and tables that have grown.
pub const KEPT_MAX_KIB: usize = 16 * 1024;

impl Victim {
    /// Open to all, with these flags.
    pub fn serve(flags: &[&str]) -> Self {
        let open = ["--push-auth", "none", "--read-auth", "anonymous"];
        Self::start(&[&open[..], flags].concat())
    }

    /// With these flags, and on ports of its own.
    pub fn start(flags: &[&str]) -> Self {
        let ports = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
        let mut command = stream_events(&[&ports[..], flags].concat());
        // As in the image: large blocks go back at once.
        for name in ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"] {
            command.env(name, "131072");
        }
        let process = Process::start(&mut command);
        let (address, ops) = (process.listen(), process.ops_listen());
        Self { process, address, ops, authorization: None, reader: None, calm_kib: 0 }
    }

    /// Remembers how much memory it takes, once it has done a little of everything.
    pub fn calm(mut self) -> Self {
        for _ in 0..20 {
            self.serves_a_normal_client();
        }
        self.calm_kib = self.memory_kib();
        self
    }

    /// Memory that is backed by no file.
    pub fn memory_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn streams(&self) -> f64 {
        metric(self.ops, "stream_events_streams")
    }

    pub fn limit_met(&self, flag: &str) -> f64 {
        metric(self.ops, &format!("stream_events_limits_met_total{{limit=\"{flag}\"}}"))
    }

    /// A request, which may fail: a server may close a connection that it does not want more of.
    pub fn raw(&self, bytes: &[u8]) -> String {
        http1::exchange(self.address, bytes)
    }

    pub fn push(&self, topic: &str, message: &serde_json::Value) -> Answer {
        let envelope = json!({ "message": message, "subscription": "projects/p/subscriptions/s" });
        let authorization = self.authorization.as_deref().map(|text| ("Authorization", text));
        let headers: Vec<_> = authorization.into_iter().collect();
        let (path, body) = (format!("/push/{topic}"), envelope.to_string());
        http1::request(self.address, "POST", &path, &headers, body.as_bytes())
    }

    pub fn publish(&self, topic: &str, data: impl AsRef<[u8]>) {
        let id = rand::random::<u64>().to_string();
        let answer = self.push(topic, &message(data, &id));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    pub fn events(&self, query: &str) -> EventSource {
        let reader = self.reader.as_deref().map(|text| ("Authorization", text));
        let headers: Vec<_> = reader.into_iter().collect();
        EventSource::open(self.address, &format!("/events{query}"), &headers)
    }

    /// One that comes, and gets what is published then.
    pub fn serves_a_normal_client(&self) {
        let mut took = Vec::new();
        // The machine of a test has other things to do: one in three is proof enough.
        for _ in 0..3 {
            let mut source = self.events("?topic=calm");
            let start = Instant::now();
            self.publish("calm", "hello");
            assert_eq!(source.next().data, "hello");
            took.push(start.elapsed());
            if start.elapsed() < SOON {
                return;
            }
        }
        panic!("a normal client waited for {took:?}");
    }

    /// Nothing that was sent to it has made it panic.
    pub fn has_not_panicked(&self) {
        let log = self.process.log();
        let panics: Vec<_> = log.iter().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:?}");
    }

    /// After an attack: normal clients are served, and the memory is back.
    pub fn has_recovered(&self) {
        self.has_recovered_but_for(KEPT_MAX_KIB);
    }

    pub fn has_recovered_but_for(&self, kept_max_kib: usize) {
        self.serves_a_normal_client();
        let max = self.calm_kib + kept_max_kib;
        eventually(&format!("its memory is back to {max} KiB"), || {
            (self.memory_kib() <= max).then_some(())
        });
        self.serves_a_normal_client();
        self.has_not_panicked();
        eprintln!("{} KiB before the attack, {} after it", self.calm_kib, self.memory_kib());
    }
}
