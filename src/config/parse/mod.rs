//! Parser of the flags' texts. It collects all errors.

pub(crate) mod addresses;
mod pull;
mod tokens;
mod traces;

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use jiff::SignedDuration;
use tracing_subscriber::filter::Targets;

use crate::config::{
    BackplaneConfig, ConfigError, Flag, Mode, Password, RedisConfig, Texts, TlsFiles, flags,
};

/// Parser of the texts of one configuration, and the errors found so far.
pub(super) struct Values<'a> {
    mode: Mode,
    texts: &'a Texts,
    problems: Vec<String>,
}

impl<'a> Values<'a> {
    pub(super) fn new(mode: Mode, texts: &'a Texts) -> Self {
        Self { mode, texts, problems: Vec::new() }
    }

    /// Returns `config`, or all errors if any was found.
    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) }
    }

    /// Returns all errors found.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// Adds an error of a flag's value.
    fn problem(&mut self, flag: &str, problem: impl Display) {
        self.problems.push(format!("--{flag}: {problem}"));
    }

    /// Returns the flag of this name.
    fn flag(flag: &str) -> Option<&'static Flag> {
        flags().find(|known| known.name == flag)
    }

    /// Returns the default of a flag in this mode.
    fn default(&self, flag: &str) -> Option<&'static str> {
        let flag = Self::flag(flag)?;
        let dev = if self.mode == Mode::Dev { flag.dev_default } else { None };
        dev.or(flag.default)
    }

    /// Returns the last text given for a flag.
    fn given(&self, flag: &str) -> Option<&'a str> {
        self.texts.get(flag).and_then(|texts| texts.last()).map(String::as_str)
    }

    /// Returns the text of a flag, or its default. Adds an error if it has neither.
    fn text(&mut self, flag: &str) -> Option<&'a str> {
        let text = self.given(flag).or_else(|| self.default(flag));
        if text.is_none() {
            let choices = Self::flag(flag).map_or("a value", |flag| flag.value_name);
            self.problem(flag, format!("serve needs this flag. Choose one of: {choices}"));
        }
        text
    }

    /// Returns all texts of a repeatable flag that are not empty.
    fn texts(&self, flag: &str) -> Vec<&'a str> {
        let texts = self.texts.get(flag).into_iter().flatten();
        texts.map(|text| text.trim()).filter(|text| !text.is_empty()).collect()
    }

    /// Reads all values of a repeatable flag.
    pub(super) fn many<T: FromStr<Err: Display>>(&mut self, flag: &str) -> Vec<T> {
        let mut values = Vec::new();
        if self.texts.contains_key(flag) && self.texts(flag).is_empty() {
            self.problem(flag, "the value is empty. Give a value, or leave the flag out");
        }
        for text in self.texts(flag) {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(err) => self.problem(flag, err),
            }
        }
        values
    }

    /// Reads a flag whose value is one of a few words.
    pub(super) fn choice<T>(&mut self, flag: &str, choices: &[(&str, T)]) -> T
    where
        T: Clone,
    {
        let text = self.text(flag);
        let found = choices.iter().find(|(word, _)| Some(*word) == text);
        if let (None, Some(text)) = (found, text) {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(
                flag,
                format!("{text:?} is not known. Expected one of: {}", words.join(", ")),
            );
        }
        // After an error the value does not matter: `finish` returns the errors.
        #[expect(clippy::indexing_slicing, reason = "each caller passes at least two choices")]
        found.unwrap_or(&choices[0]).1.clone()
    }

    /// Reads a number with `parse`, and checks it against the flag's range. `form` describes the
    /// expected text.
    fn number<T: PartialOrd + Default>(
        &mut self,
        flag: &str,
        form: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(flag) else { return T::default() };
        let Some(value) = parse(text) else {
            self.problem(flag, format!("{text:?} is not {form}"));
            return self.default(flag).and_then(parse).unwrap_or_default();
        };
        if let Some((least, most)) = Self::flag(flag).and_then(|flag| flag.range) {
            let below = parse(least).is_some_and(|least| value < least);
            let above = parse(most).is_some_and(|most| most < value);
            if below || above {
                self.problem(flag, format!("{text:?} is out of range. Expected {least} to {most}"));
            }
        }
        value
    }

    /// Reads a whole number.
    pub(super) fn count(&mut self, flag: &str) -> usize {
        self.number(flag, "a whole number", |text| text.trim().parse().ok())
    }

    /// Reads a whole number of at most 32 bits.
    pub(super) fn small_count(&mut self, flag: &str) -> u32 {
        self.number(flag, "a whole number", |text| text.trim().parse().ok())
    }

    /// Reads a size, in bytes.
    pub(super) fn bytes(&mut self, flag: &str) -> usize {
        self.number(flag, "a size, as in 32 MiB", |text| {
            usize::try_from(text.parse::<ByteSize>().ok()?.as_u64()).ok()
        })
    }

    /// Reads a time. A number without a unit is in seconds.
    pub(super) fn duration(&mut self, flag: &str) -> Duration {
        self.number(flag, TIME_FORM, parse_time)
    }

    /// Reads `--tls-cert` and `--tls-key`.
    pub(super) fn tls(&mut self) -> Option<TlsFiles> {
        let mut file = |flag| self.text(flag).filter(|text| !text.is_empty()).map(PathBuf::from);
        match (file("tls-cert"), file("tls-key")) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem("tls-cert", "the key is missing. Give --tls-key too");
                None
            }
            (None, Some(_)) => {
                self.problem("tls-key", "the certificate is missing. Give --tls-cert too");
                None
            }
        }
    }

    /// Reads `--backplane`, and the flags for Redis.
    pub(super) fn backplane(&mut self) -> BackplaneConfig {
        const FLAG: &str = "backplane";
        // These flags are read in any case, so that their errors are reported.
        let redis = RedisConfig {
            host: String::new(),
            port: 6379,
            database: 0,
            tls: false,
            ca: self.filled("redis-ca").map(PathBuf::from),
            user: self.filled("redis-user").map(str::to_owned),
            password: self.redis_password(),
            prefix: self.redis_prefix(),
            log_age: self.duration("log-age"),
            log_events: self.count("log-events"),
            log_bytes: self.bytes("log-bytes"),
            dedup_age: self.duration("dedup-age"),
        };
        let text = self.text(FLAG).unwrap_or_default();
        if text == "local" {
            return BackplaneConfig::Local;
        }
        match redis_url(text, redis) {
            Ok(redis) => BackplaneConfig::Redis(Box::new(redis)),
            // The error does not repeat the URL, which may hold a password.
            Err(problem) => {
                self.problem(FLAG, problem);
                BackplaneConfig::Local
            }
        }
    }

    /// Returns the text of a flag if it is not empty.
    fn filled(&mut self, flag: &str) -> Option<&'a str> {
        self.text(flag).filter(|text| !text.is_empty())
    }

    /// Reads the password from its file or from the environment. Adds an error if both are given.
    fn redis_password(&mut self) -> Option<Password> {
        const FILE: &str = "redis-password-file";
        let file = self.filled(FILE).map(|path| Password::File(path.into()));
        let text = self.filled("redis-password").map(|text| Password::Text(text.to_owned()));
        if file.is_some() && text.is_some() {
            self.problem(FILE, "STREAM_EVENTS_REDIS_PASSWORD is set too. Give only one of the two");
        }
        file.or(text)
    }

    /// Reads the prefix of keys. It is part of a hash tag (`{…}`), so braces are not allowed.
    fn redis_prefix(&mut self) -> String {
        const FLAG: &str = "redis-prefix";
        let text = self.text(FLAG).unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(allowed) {
            self.problem(
                FLAG,
                format!("{text:?} is not valid. Expected 1 to 64 letters, digits and - . _ :"),
            );
        }
        text.to_owned()
    }

    /// Reads the number of workers. 0 becomes the number of cores.
    pub(super) fn workers(&mut self) -> usize {
        match self.count("workers") {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// Reads `--log-level`, and checks it as `telemetry::logs` does.
    pub(super) fn log_level(&mut self) -> String {
        const FLAG: &str = "log-level";
        let text = self.text(FLAG).unwrap_or_default();
        if let Err(err) = text.parse::<Targets>() {
            self.problem(FLAG, err);
        }
        text.to_owned()
    }
}

/// Form of a time, for errors.
pub(crate) const TIME_FORM: &str = "a time, as in 15 s, 10 min or 15 (seconds)";

/// Parses a time. A number without a unit is in seconds. Returns `None` if the text is no time.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// Adds the parts of a redis:// URL to `redis`. Returns a text that says what is wrong.
fn redis_url(text: &str, redis: RedisConfig) -> Result<RedisConfig, &'static str> {
    const FORM: &str = "expected local, or a URL such as redis://10.0.0.3:6379 or rediss://…";
    let url = reqwest::Url::parse(text).map_err(|_| FORM)?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(FORM),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "the URL holds a user or a password, which would appear in logs. Use --redis-user \
                    and --redis-password-file, or STREAM_EVENTS_REDIS_PASSWORD",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL has a query or a fragment. Remove it");
    }
    if redis.ca.is_some() && !tls {
        return Err(
            "redis:// does not use TLS, but --redis-ca is given. Use rediss://, or remove \
                    --redis-ca",
        );
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number
            .parse::<u16>()
            .map_err(|_| "the path must be the number of a database, as in /0")?,
    };
    Ok(RedisConfig {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(redis.port),
        database: database.into(),
        tls,
        ..redis
    })
}
