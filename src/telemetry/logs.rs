//! Log on standard error: plain text, or JSON for Cloud Logging.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{clock, config::LogFormat};

/// Default filters for libraries that log one line for each client that disconnects, or that sends
/// bytes that are not HTTP. Any client could fill the log with these lines.
const QUIET: [(&str, LevelFilter); 2] =
    [("actix_http", LevelFilter::OFF), ("actix_server", LevelFilter::WARN)];

/// Installs the log of the process. Writes to standard error.
///
/// `level` is a filter in the syntax of [`Targets`].
///
/// # Errors
/// Fails when a log is already installed, or when `level` is not a valid filter.
pub(crate) fn init(
    format: LogFormat,
    level: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut filter: Targets = level.parse()?;
    // `off` and `error` exclude these lines already. A filter that names actix takes precedence.
    let quiet_enough = ["off", "error"].contains(&level) || level.contains("actix");
    if !quiet_enough {
        filter = filter.with_targets(QUIET);
    }
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.event_format(CloudLogging).boxed(),
    };
    tracing_subscriber::registry().with(log).with(filter).try_init()?;
    Ok(())
}

/// Format with one JSON object per line and the field names of Cloud Logging's
/// [structured logs](https://cloud.google.com/logging/docs/structured-logging).
#[derive(Debug)]
struct CloudLogging;

impl<S, N> FormatEvent<S, N> for CloudLogging
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = fields.0;
        line.insert("severity".to_owned(), severity(*metadata.level()).into());
        line.insert("time".to_owned(), rfc3339(clock::now_ms()).into());
        line.insert("target".to_owned(), metadata.target().into());
        if let (Some(file), Some(at)) = (metadata.file(), metadata.line()) {
            let location = json!({ "file": file, "line": at.to_string() });
            line.insert("logging.googleapis.com/sourceLocation".to_owned(), location);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Returns Cloud Logging's name of a level.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// Formats a time as RFC 3339. Returns an empty text for a time after the year 9999.
fn rfc3339(unix_ms: u64) -> String {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |t| t.to_string())
}

/// Collector of the fields of one log line.
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }
}
