//! Every knob once: flag, environment name, unit, default, limit, help text.
//!
//! A knob's value is text until [`Config::from_texts`] reads it, so that all that is wrong with a
//! configuration is told at once and not one thing at a time.

mod endpoints;
mod flag;
mod flags;
mod origin;
mod parse;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use crate::config::endpoints::Endpoints;
pub use crate::config::flag::Flag;
pub use crate::config::flags::FLAGS;
pub use crate::config::origin::{Origin, ParseOriginError};

use crate::model::topic::Topic;

/// The largest body of a push: 10 MB of data, which base64 makes a third longer, and its
/// attributes.
pub const PUSH_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The configuration of a gateway, read and checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub listen: SocketAddr,
    pub ops_listen: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    /// Whether every public connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    pub push_auth: PushAuth,
    pub push_jwks_url: String,
    pub poison: OnPoison,
    pub read_auth: ReadAuth,
    /// The pages that may ask, with credentials; any without if empty.
    pub cors_origins: Vec<Origin>,
    pub push_bytes_in_flight: usize,
    /// The only topics served; any if empty.
    pub topics: Vec<Topic>,
    pub ring_events: usize,
    pub ring_bytes: usize,
    pub ring_age: Duration,
    pub ring_bytes_total: usize,
    pub topics_max: usize,
    pub dedup_age: Duration,
    pub dedup_ids: usize,
    pub dedup_ids_total: usize,
    pub backplane: BackplaneConfig,
    pub subscribers_max: usize,
    /// For the topics that all streams follow.
    pub followed_bytes_max: usize,
    /// Each 0 for no limit.
    pub streams_per_subject: usize,
    pub streams_per_address: usize,
    /// Per second, each 0 for no limit.
    pub requests_per_address: u32,
    pub push_failures_per_address: u32,
    pub tickets_per_subject: u32,
    pub connections_per_address: usize,
    pub idle_connections_max: usize,
    pub trusted_proxies: usize,
    pub topics_per_stream: usize,
    pub head_bytes_max: usize,
    pub query_bytes_max: usize,
    pub http2_streams_max: u32,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keep_alive: Duration,
    pub stream_age_max: Duration,
    pub write_timeout: Duration,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub coalesce_max: Duration,
    pub direct_streams: bool,
    pub workers: usize,
    pub log_format: LogFormat,
    /// Directives of `tracing-subscriber`'s `EnvFilter`.
    pub log_level: String,
}

/// What the gateway was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To try it: loopback only, no tokens, the demo page.
    Dev,
    /// For production: nothing is open that was not opened explicitly.
    Serve,
}

/// Who may push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushAuth {
    /// Anyone who can connect.
    None,
    /// Pub/Sub, with a token of one of these service accounts for one of these audiences.
    Oidc { audiences: Vec<String>, service_accounts: Vec<String> },
}

/// Who may read.
#[derive(Debug, Clone)]
pub enum ReadAuth {
    /// Anyone who can connect.
    Anonymous,
    /// Whoever has a token.
    Jwt(Box<ReadJwt>),
}

/// How readers' tokens are verified, and what they grant.
#[derive(Debug, Clone)]
pub struct ReadJwt {
    pub keys: ReadKeys,
    pub audiences: Vec<String>,
    pub issuers: Vec<String>,
    /// The cookie that a token may be in.
    pub cookie: Option<String>,
    pub topics_claim: String,
}

/// Where the keys of readers' tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadKeys {
    Url(String),
    File(PathBuf),
}

/// What becomes of a message that can never be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPoison {
    /// It is acked, counted and logged.
    Ack,
    /// It is refused, so that Pub/Sub moves it to the subscription's dead-letter topic.
    Nack,
}

/// Where events are kept.
#[derive(Debug, Clone)]
pub enum BackplaneConfig {
    /// In this process.
    Local,
    /// In Redis, for all replicas.
    Redis(Box<RedisConfig>),
}

/// Which Redis server, and how much it keeps.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub host: String,
    pub port: u16,
    pub database: i64,
    pub tls: bool,
    /// The system's certificates if there is none.
    pub ca: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Password>,
    /// Begins the names of all keys.
    pub prefix: String,
    pub log_age: Duration,
    pub log_events: usize,
    pub log_bytes: usize,
    /// How long a message's id is remembered.
    pub dedup_age: Duration,
}

/// A password, or where it is.
#[derive(Clone)]
pub enum Password {
    File(PathBuf),
    Text(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For Cloud Logging.
    Json,
}

/// Where the certificate chain and its key are, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The values given for each flag: more than one only for a repeatable one.
pub type Texts = BTreeMap<&'static str, Vec<String>>;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the texts of all knobs; a knob that is not among them has its default.
    ///
    /// `port` is Cloud Run's `PORT`. It sets the port of `--listen`'s default: an explicit
    /// `--listen` or `--port` wins.
    ///
    /// # Errors
    /// With every problem found.
    pub fn from_texts(mode: Mode, texts: &Texts, port: Option<&str>) -> Result<Self, ConfigError> {
        let mut values = parse::Values::new(mode, texts);
        let config = Self {
            mode,
            listen: values.listen(port),
            ops_listen: values.ops_listen(),
            tls: values.tls(),
            proxy_protocol: values.choice("proxy-protocol", &[("off", false), ("on", true)]),
            push_auth: values.push_auth(),
            push_jwks_url: values.jwks_url("push-jwks-url"),
            poison: values.choice("poison", &[("ack", OnPoison::Ack), ("nack", OnPoison::Nack)]),
            read_auth: values.read_auth(),
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
            streams_per_subject: values.count("streams-per-subject"),
            streams_per_address: values.count("streams-per-address"),
            requests_per_address: values.small_count("requests-per-address"),
            push_failures_per_address: values.small_count("push-failures-per-address"),
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
            stream_age_max: values.duration("stream-age-max"),
            write_timeout: values.duration("write-timeout"),
            drain_delay: values.duration("drain-delay"),
            drain_timeout: values.duration("drain-timeout"),
            coalesce_max: values.duration("coalesce-max"),
            direct_streams: values.choice("direct-streams", &[("off", false), ("on", true)]),
            workers: values.workers(),
            log_format: values
                .choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            log_level: values.log_level(),
        };
        values.check(config.dedup_age >= config.ring_age, || {
            "--dedup-age must be at least --ring-age, or a message that Pub/Sub sends again would be \
             shown twice"
                .to_owned()
        });
        if let BackplaneConfig::Redis(redis) = &config.backplane {
            values.check(config.dedup_age >= redis.log_age, || {
                "--dedup-age must be at least --log-age, or a message that Pub/Sub sends again would \
                 be shown twice"
                    .to_owned()
            });
        }
        values.check(config.ring_bytes <= config.ring_bytes_total, || {
            "--ring-bytes-total must be at least --ring-bytes".to_owned()
        });
        values.finish(config)
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
    fn every_default_is_a_value_that_its_knob_takes() {
        let config = read(Mode::Dev, &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((config.ring_events, config.ring_bytes), (1024, 32 << 20));
        assert_eq!(config.stream_age_max, Duration::from_secs(55 * 60));
        assert!(config.ops_listen.is_none());
    }

    #[test]
    fn serve_wants_to_be_told_who_may_push_and_who_may_read() {
        let problems = read(Mode::Serve, &[]).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("--push-auth")));
        assert!(problems.iter().any(|problem| problem.starts_with("--read-auth")));
        let chosen = [("push-auth", "none"), ("read-auth", "anonymous")];
        assert!(read(Mode::Serve, &chosen).is_ok());
    }

    #[test]
    fn oidc_wants_an_audience_and_a_service_account() {
        let chosen = [("push-auth", "oidc"), ("read-auth", "anonymous")];
        let problems = read(Mode::Serve, &chosen).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn every_problem_is_named_at_once() {
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
    fn dev_stays_on_loopback() {
        let problems = read(Mode::Dev, &[("listen", "0.0.0.0:8080")]).unwrap_err();
        assert!(problems[0].contains("loopback"), "{problems:?}");
    }

    #[test]
    fn the_port_of_the_platform_sets_the_default_only() {
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

    #[test]
    fn windows_that_would_show_an_event_twice_are_refused() {
        let given = [("ring-age", "40 min"), ("dedup-age", "30 min")];
        assert!(read(Mode::Dev, &given).unwrap_err()[0].starts_with("--dedup-age"));
    }
}
