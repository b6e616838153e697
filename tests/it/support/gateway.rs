//! A gateway in this process, on ports of its own.

use std::{net::SocketAddr, path::Path, sync::Arc, thread::JoinHandle};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::ClientConfig;
use serde_json::json;
use stream_events::{
    config::{self, Config, Flag, Mode, Texts},
    server::{self, Files, Listeners},
};
use tokio::sync::oneshot;

use super::{
    eventually,
    http1::{self, Answer, EventSource},
    reader::tls_stream,
    tls::{Bridge, Certificate},
};

pub struct Gateway {
    /// Where clients without TLS connect: to the gateway, or to a bridge in front of it.
    pub address: SocketAddr,
    pub ops: SocketAddr,
    /// How a client speaks TLS with it, if it does. Such a client offers HTTP/1.1 alone.
    pub tls: Option<Arc<ClientConfig>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    bridge: Option<Bridge>,
}

impl Gateway {
    /// As `dev`, with these flags.
    pub fn dev(flags: &[(&'static str, &str)]) -> Self {
        Self::start(Mode::Dev, flags)
    }

    /// As `serve`, with these flags.
    pub fn serve(flags: &[(&'static str, &str)]) -> Self {
        Self::start(Mode::Serve, flags)
    }

    /// As `dev`, with these flags, over TLS.
    pub fn dev_over_tls(flags: &[(&'static str, &str)]) -> Self {
        let certificate = Certificate::new();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (cert, key) = (path(&certificate.cert), path(&certificate.key));
        let tls = [("tls-cert", cert.as_str()), ("tls-key", key.as_str())];
        let mut gateway = Self::start(Mode::Dev, &[&tls, flags].concat());
        gateway.tls = Some(certificate.client(&["http/1.1"]));
        gateway
    }

    /// As `dev`, without TLS and with it, each with its name.
    pub fn plain_and_tls(flags: &[(&'static str, &str)]) -> [(&'static str, Self); 2] {
        [("plain", Self::dev(flags)), ("TLS", Self::over_tls(Mode::Dev, flags))]
    }

    /// A gateway that speaks TLS only, behind a bridge.
    pub fn over_tls(mode: Mode, flags: &[(&'static str, &str)]) -> Self {
        let certificate = Certificate::new();
        let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
        let mut gateway =
            Self::start(mode, &[flags, &[("tls-cert", cert), ("tls-key", key)]].concat());
        let bridge = Bridge::start(certificate, gateway.address);
        gateway.address = bridge.address;
        gateway.bridge = Some(bridge);
        gateway
    }

    fn start(mode: Mode, flags: &[(&'static str, &str)]) -> Self {
        let mut texts = Texts::new();
        for listen in ["listen", "ops-listen"] {
            texts.insert(listen, vec!["127.0.0.1:0".to_owned()]);
        }
        texts.insert("drain-timeout", vec!["0 s".to_owned()]);
        for (flag, text) in flags {
            let is_repeatable = |known: &Flag| known.name == *flag && known.is_repeatable;
            if config::flags().any(is_repeatable) {
                texts.entry(flag).or_default().push((*text).to_owned());
            } else {
                texts.insert(flag, vec![(*text).to_owned()]);
            }
        }
        let config = Config::from_texts(mode, &texts, None).unwrap();
        let listeners = Listeners::bind(&config).unwrap();
        let address = listeners.public.local_addr().unwrap();
        let ops_address = listeners.ops.as_ref().unwrap().local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let files = Files::load(&config).unwrap();
        let thread = std::thread::spawn(move || {
            let shutdown = async { drop(stopped.await) };
            actix_web::rt::System::new()
                .block_on(server::run(config, files, listeners, shutdown))
                .unwrap();
        });
        let tls = None;
        Self {
            address,
            ops: ops_address,
            tls,
            stop: Some(stop),
            thread: Some(thread),
            bridge: None,
        }
    }

    /// A stream, once its first block is there.
    pub fn events(&self, query: &str) -> EventSource {
        self.events_with(query, &[])
    }

    /// A stream of a request with these headers.
    pub fn events_with(&self, query: &str, headers: &[(&str, &str)]) -> EventSource {
        EventSource::open(self.address, &format!("/events{query}"), headers)
    }

    /// A stream that resumes after an id.
    pub fn resume(&self, query: &str, id: &str) -> EventSource {
        self.events_with(query, &[("Last-Event-ID", id)])
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, b"")
    }

    /// The status and the headers of what may be a stream.
    pub fn get_head(&self, path: &str, headers: &[(&str, &str)]) -> http1::Head {
        let mut socket = http1::connect(self.address);
        http1::write_head(&mut socket, "GET", path, headers);
        http1::read_head(&mut std::io::BufReader::new(socket)).unwrap()
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request("POST", path, headers, body)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let socket = http1::connect(self.address);
        match &self.tls {
            Some(tls) => http1::request_on(tls_stream(socket, tls), method, path, headers, body),
            None => http1::request_on(socket, method, path, headers, body),
        }
    }

    /// Pushes data, wrapped, with a message id of its own, and expects it to be acked.
    pub fn publish(&self, topic: &str, data: impl AsRef<[u8]>) {
        let id = rand::random::<u64>().to_string();
        let answer = self.push(topic, &message(data, &id));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Pushes a message, wrapped as Pub/Sub does.
    pub fn push(&self, topic: &str, message: &serde_json::Value) -> Answer {
        let envelope = json!({ "message": message, "subscription": "projects/p/subscriptions/s" });
        let headers = [("Content-Type", "application/json")];
        self.post(&format!("/push/{topic}"), &headers, envelope.to_string().as_bytes())
    }

    /// The value of a metric, 0 if it is not there yet: `name` or `name{label="value"}`.
    pub fn metric(&self, name: &str) -> f64 {
        metric(self.ops, name)
    }

    /// Waits until a metric has a value.
    pub fn until_metric(&self, name: &str, value: f64) {
        let same = |seen: f64| (seen - value).abs() < 0.5;
        eventually(&format!("{name} = {value}"), || same(self.metric(name)).then_some(()));
    }

    /// Asks it to shut down, and returns while it is at it.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Shuts it down and waits until it is.
    pub fn stop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the gateway panicked");
        }
    }
}

/// As [`Gateway::metric`], of whichever gateway has its metrics there.
pub fn metric(ops: SocketAddr, name: &str) -> f64 {
    let answer = http1::request(ops, "GET", "/metrics", &[], b"");
    let text = answer.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A message as in a wrapped push.
pub fn message(data: impl AsRef<[u8]>, id: &str) -> serde_json::Value {
    json!({ "data": STANDARD.encode(data), "messageId": id, "message_id": id })
}
