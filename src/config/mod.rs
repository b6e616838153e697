//! Configuration: the table of flags ([`flags()`]), and the checked values ([`Config`]).
//!
//! A value is text until [`Config::from_texts`] reads it. One call reports all errors of a
//! configuration, not only the first.

mod auth;
mod backplane;
mod choices;
mod endpoints;
mod flag;
mod flags;
mod origin;
mod parse;
mod pull;
mod rules;
mod traces;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use crate::config::auth::{PublishAuth, PushAuth, ReadAuth, ReadJwt, ReadKeys};
pub use crate::config::backplane::{BackplaneConfig, Password, RedisConfig};
pub use crate::config::choices::{LogFormat, Mode, OnPoison};
pub use crate::config::endpoints::Endpoints;
pub use crate::config::flag::Flag;
pub(crate) use crate::config::flags::categories;
pub use crate::config::flags::flags;
pub use crate::config::origin::{Origin, ParseOriginError};
pub(crate) use crate::config::parse::{TIME_FORM, parse_time};
pub use crate::config::pull::{ParsePullError, PullConfig, PullSubscription};
pub use crate::config::traces::TraceConfig;

use crate::model::topic::Topic;

/// Largest body of a push, in bytes. Pub/Sub allows 10 MB of data, which base64 makes a third
/// longer, and attributes.
pub const PUSH_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Checked configuration of a gateway. Each field has the value of the flag of its name.
#[derive(Debug, Clone)]
pub struct Config {
    /// Subcommand that started the gateway.
    pub mode: Mode,
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Address of the ops listener. `None` turns it off.
    pub ops_listen: Option<SocketAddr>,
    /// Certificate of the public listener. `None` for clear text.
    pub tls: Option<TlsFiles>,
    /// True if every public connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Check of push tokens.
    pub push_auth: PushAuth,
    /// URL of the keys of push tokens.
    pub push_jwks_url: String,
    /// Subscriptions that are pulled.
    pub pull: PullConfig,
    /// Answer to a message that can never be used.
    pub poison: OnPoison,
    /// Check of readers' tokens.
    pub read_auth: ReadAuth,
    /// True if there is a page at `/` that shows events to people.
    pub page: bool,
    /// Check of publishers' tokens.
    pub publish_auth: PublishAuth,
    /// Origins of the pages that may read with credentials. If empty, all pages may read, without
    /// credentials.
    pub cors_origins: Vec<Origin>,
    /// Memory for all bodies of pushes being received, in bytes.
    pub push_bytes_in_flight: usize,
    /// Topics served. If empty, all topics are served.
    pub topics: Vec<Topic>,
    /// Events held for replay, for each topic.
    pub ring_events: usize,
    /// Bytes held for replay, for each topic.
    pub ring_bytes: usize,
    /// Time that an event is held for replay.
    pub ring_age: Duration,
    /// Bytes held for replay, for all topics together.
    pub ring_bytes_total: usize,
    /// Topics held at once.
    pub topics_max: usize,
    /// Time that a message id is remembered.
    pub dedup_age: Duration,
    /// Message ids remembered, for each topic.
    pub dedup_ids: usize,
    /// Message ids remembered, for all topics together.
    pub dedup_ids_total: usize,
    /// Store of the events.
    pub backplane: BackplaneConfig,
    /// Open streams at once.
    pub subscribers_max: usize,
    /// Memory for the topics that all streams follow, in bytes.
    pub followed_bytes_max: usize,
    /// Different filters, on each worker.
    pub filters_max: usize,
    /// Open streams for each subject of readers' tokens. 0 for no limit.
    pub streams_per_subject: usize,
    /// Open streams for each client address. 0 for no limit.
    pub streams_per_address: usize,
    /// Requests per second for each client address. 0 for no limit.
    pub requests_per_address: u32,
    /// Pushes with a bad token per second for each client address. 0 for no limit.
    pub push_failures_per_address: u32,
    /// Published messages per second for each subject of publishers' tokens. 0 for no limit.
    pub publishes_per_subject: u32,
    /// Published messages per second for each client address. 0 for no limit.
    pub publishes_per_address: u32,
    /// Tickets per second for each subject of readers' tokens. 0 for no limit.
    pub tickets_per_subject: u32,
    /// Open connections for each address that connects. 0 for no limit.
    pub connections_per_address: usize,
    /// Connections of each worker beyond its share of `subscribers_max`.
    pub idle_connections_max: usize,
    /// Number of proxies that add an address to `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// Topics that one reader may name.
    pub topics_per_stream: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes_max: usize,
    /// Largest query of a request, in bytes.
    pub query_bytes_max: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Time for a connection's PROXY header, TLS handshake and first bytes.
    pub handshake_timeout: Duration,
    /// Time for the head of a request.
    pub header_timeout: Duration,
    /// Time for the body of a push.
    pub body_timeout: Duration,
    /// Silence on a stream before a comment is sent.
    pub keep_alive: Duration,
    /// Time for which a member of a topic without a stream stays a member.
    pub presence_grace: Duration,
    /// Longest life of a stream.
    pub stream_age_max: Duration,
    /// Time that a reader may take no bytes.
    pub write_timeout: Duration,
    /// Time from SIGTERM until streams end.
    pub drain_delay: Duration,
    /// Time over which streams end.
    pub drain_timeout: Duration,
    /// Longest wait of an overloaded worker before it writes.
    pub coalesce_max: Duration,
    /// Threads that serve connections: at least 1.
    pub workers: usize,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Directives of `tracing-subscriber`'s `Targets`.
    pub log_level: String,
    /// Settings of the traces of messages.
    pub traces: TraceConfig,
}

/// Files with a certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// File with the certificate chain.
    pub cert: PathBuf,
    /// File with the private key.
    pub key: PathBuf,
}

/// Texts given for each flag, by its name. Only a repeatable flag has more than one.
pub type Texts = BTreeMap<&'static str, Vec<String>>;

/// Errors of a configuration: all of them, one text for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the texts of all flags. A flag without a text has its default.
    ///
    /// `port` is the variable `PORT` of Cloud Run. It replaces the port of the default of
    /// `--listen`. An explicit `--listen` or `--port` wins.
    ///
    /// # Errors
    /// Returns all errors found.
    pub fn from_texts(mode: Mode, texts: &Texts, port: Option<&str>) -> Result<Self, ConfigError> {
        let (config, problems) = Self::read(mode, texts, port);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// Reads the texts of all flags, like [`Config::from_texts`]. Returns the configuration and all
    /// errors found. In the configuration, a default or "off" replaces each text that could not be
    /// read.
    pub(crate) fn read(mode: Mode, texts: &Texts, port: Option<&str>) -> (Self, Vec<String>) {
        let mut values = parse::Values::new(mode, texts);
        let (read_auth, publish_auth) = values.read_and_publish_auth();
        let config = Self {
            mode,
            listen: values.listen(port),
            ops_listen: values.ops_listen(),
            tls: values.tls(),
            proxy_protocol: values.choice("proxy-protocol", &[("off", false), ("on", true)]),
            push_auth: values.push_auth(),
            push_jwks_url: values.jwks_url("push-jwks-url"),
            pull: values.pull(),
            poison: values.choice("poison", &[("ack", OnPoison::Ack), ("nack", OnPoison::Nack)]),
            read_auth,
            page: values.choice("page", &[("off", false), ("on", true)]),
            publish_auth,
            cors_origins: values.many("cors-origin"),
            push_bytes_in_flight: values.bytes("push-bytes-in-flight"),
            topics: values.many("topic"),
            ring_events: values.count("ring-events"),
            ring_bytes: values.bytes("ring-bytes"),
            ring_age: values.duration("ring-age"),
            ring_bytes_total: values.bytes("ring-bytes-total"),
            topics_max: values.count("topics-max"),
            dedup_age: values.duration("dedup-age"),
            dedup_ids: values.count("dedup-ids"),
            dedup_ids_total: values.count("dedup-ids-total"),
            backplane: values.backplane(),
            subscribers_max: values.count("subscribers-max"),
            followed_bytes_max: values.bytes("followed-bytes-max"),
            filters_max: values.count("filters-max"),
            streams_per_subject: values.count("streams-per-subject"),
            streams_per_address: values.count("streams-per-address"),
            requests_per_address: values.small_count("requests-per-address"),
            push_failures_per_address: values.small_count("push-failures-per-address"),
            publishes_per_subject: values.small_count("publishes-per-subject"),
            publishes_per_address: values.small_count("publishes-per-address"),
            tickets_per_subject: values.small_count("tickets-per-subject"),
            connections_per_address: values.count("connections-per-address"),
            idle_connections_max: values.count("idle-connections-max"),
            trusted_proxies: values.count("trusted-proxies"),
            topics_per_stream: values.count("topics-per-stream"),
            head_bytes_max: values.bytes("head-bytes-max"),
            query_bytes_max: values.bytes("query-bytes-max"),
            http2_streams_max: values.small_count("http2-streams-max"),
            handshake_timeout: values.duration("handshake-timeout"),
            header_timeout: values.duration("header-timeout"),
            body_timeout: values.duration("body-timeout"),
            keep_alive: values.duration("keep-alive"),
            presence_grace: values.duration("presence-grace"),
            stream_age_max: values.duration("stream-age-max"),
            write_timeout: values.duration("write-timeout"),
            drain_delay: values.duration("drain-delay"),
            drain_timeout: values.duration("drain-timeout"),
            coalesce_max: values.duration("coalesce-max"),
            workers: values.workers(),
            log_format: values
                .choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            log_level: values.log_level(),
            traces: values.traces(),
        };
        let mut problems = values.into_problems();
        if problems.is_empty() {
            problems = config.broken_rules();
        }
        (config, problems)
    }

    /// Returns the checks of the tokens of readers and publishers, if any of them needs a token.
    pub fn token_checks(&self) -> Option<&ReadJwt> {
        match (&self.read_auth, &self.publish_auth) {
            (ReadAuth::Jwt(checks), _) | (_, PublishAuth::Jwt(checks)) => Some(checks),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mode: Mode, given: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
        let mut texts = Texts::new();
        for (flag, text) in given {
            texts.entry(flag).or_default().push((*text).to_owned());
        }
        Config::from_texts(mode, &texts, None).map_err(|bad| bad.0)
    }

    #[test]
    fn every_default_passes_the_checks_of_its_flag() {
        let config = read(Mode::Dev, &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((config.ring_events, config.ring_bytes), (1024, 32 << 20));
        assert_eq!(config.stream_age_max, Duration::from_secs(55 * 60));
        assert!(config.ops_listen.is_none());
    }

    #[test]
    fn serve_requires_push_auth_and_read_auth() {
        let problems = read(Mode::Serve, &[]).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("--push-auth")));
        assert!(problems.iter().any(|problem| problem.starts_with("--read-auth")));
        let chosen = [("push-auth", "none"), ("read-auth", "anonymous")];
        assert!(read(Mode::Serve, &chosen).is_ok());
    }

    #[test]
    fn publishers_have_the_keys_of_readers_also_if_anyone_may_read() {
        let key = ("read-key-file", "key.pem");
        let given = [("push-auth", "none"), ("publish-auth", "jwt")];
        for read_auth in ["jwt", "anonymous"] {
            let given = [&given[..], &[("read-auth", read_auth)]].concat();
            let problems = read(Mode::Serve, &given).unwrap_err();
            assert_eq!(problems.len(), 1, "{read_auth}: {problems:?}");
            assert!(problems[0].contains("--read-key-file"), "{read_auth}: {problems:?}");
            let config = read(Mode::Serve, &[&given[..], &[key]].concat()).unwrap();
            assert!(matches!(config.publish_auth, PublishAuth::Jwt(_)), "{read_auth}");
            assert!(config.token_checks().is_some(), "{read_auth}");
        }
        let off = read(Mode::Serve, &[("push-auth", "none"), ("read-auth", "anonymous")]).unwrap();
        assert!(matches!(off.publish_auth, PublishAuth::Off));
        assert!(off.token_checks().is_none());
    }

    #[test]
    fn oidc_requires_an_audience_and_a_service_account() {
        let chosen = [("push-auth", "oidc"), ("read-auth", "anonymous")];
        let problems = read(Mode::Serve, &chosen).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn one_call_reports_all_errors() {
        let given = [
            ("listen", "nowhere"),
            ("ring-events", "0"),
            ("ring-bytes", "1 MiB"),
            ("keep-alive", "soon"),
            ("drain-timeout", "3 h"),
            ("topic", "a/b"),
            ("poison", "eat"),
            ("tls-cert", "cert.pem"),
            ("push-jwks-url", "http://example.com/keys"),
        ];
        let problems = read(Mode::Dev, &given).unwrap_err();
        for (flag, _) in given {
            assert!(problems.iter().any(|p| p.starts_with(&format!("--{flag}"))), "{flag}");
        }
    }

    #[test]
    fn dev_refuses_addresses_that_are_not_loopback() {
        let problems = read(Mode::Dev, &[("listen", "0.0.0.0:8080")]).unwrap_err();
        assert!(problems[0].contains("loopback"), "{problems:?}");
    }

    #[test]
    fn the_platforms_port_changes_only_the_default_address() {
        let listen = |given: &[(&'static str, &str)]| {
            let mut texts = Texts::from([
                ("push-auth", vec!["none".to_owned()]),
                ("read-auth", vec!["anonymous".to_owned()]),
            ]);
            texts.extend(given.iter().map(|(flag, text)| (*flag, vec![(*text).to_owned()])));
            Config::from_texts(Mode::Serve, &texts, Some("9999")).unwrap().listen.to_string()
        };
        assert_eq!(listen(&[]), "0.0.0.0:9999");
        assert_eq!(listen(&[("listen", "127.0.0.1:1234")]), "127.0.0.1:1234");
    }

    #[test]
    fn a_time_without_a_unit_is_in_seconds() {
        let given = [
            ("keep-alive", "20"),
            ("handshake-timeout", "3"),
            ("drain-timeout", "0"),
            ("log-age", "90"),
        ];
        let config = read(Mode::Dev, &given).unwrap();
        assert_eq!(config.keep_alive, Duration::from_secs(20));
        assert_eq!(
            (config.handshake_timeout, config.drain_timeout),
            (Duration::from_secs(3), Duration::ZERO)
        );
        let problems =
            read(Mode::Dev, &[("keep-alive", "900"), ("header-timeout", "1.5")]).unwrap_err();
        assert_eq!(problems[1], "--keep-alive: \"900\" is out of range. Expected 1 s to 10 min");
        assert!(problems[0].contains("15 (seconds)"), "{problems:?}");
    }
}
