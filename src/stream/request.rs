//! Stream request: the query and the headers of `GET /events`, parsed once.

use std::time::Duration;

use actix_web::{HttpRequest, http::header::HeaderName};
use actix_web_lab::extract::Query;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde::Deserialize;

use crate::{
    hub::Start,
    model::{
        event_id::EventId,
        filter::{Filter, FilterCache},
        topic::TopicPattern,
    },
    stream::{
        delivery::{Delivery, accepted},
        fold::{FoldBy, FoldRule, Slow},
        presence::PresenceRequest,
    },
};

/// Parsed request for a stream.
#[derive(Debug)]
pub struct StreamRequest {
    /// Topics as the reader named them. Empty means all.
    pub topics: Vec<TopicPattern>,
    /// Filter of the events. `None` if the reader asks for all.
    pub filter: Option<Filter>,
    /// Position at which reading begins.
    pub start: Start,
    /// Rule by which the first events are selected (`rewind=`, `latest=`). `None` selects all.
    pub fold: Option<FoldRule>,
    /// Treatment of the reader when it cannot keep up (`slow=`).
    pub slow: Slow,
    /// Request to take part in the topics (`presence=`).
    pub presence: Option<Box<PresenceRequest>>,
    /// Form of the answer.
    pub delivery: Delivery,
    /// Form of an event in the answer.
    pub format: EventFormat,
    /// Options of [`Delivery::Poll`].
    pub poll: PollOptions,
    /// Id that the reader sent, if it is an event id.
    pub id: Option<EventId>,
    /// True if `Accept` names `text/event-stream`, as `EventSource` does: such a reader never
    /// reconnects after a status other than 200.
    pub is_event_source: bool,
    /// Ticket in place of a token.
    pub ticket: Option<String>,
}

/// Options of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollOptions {
    /// Largest number of events of the answer (`limit=`). 0 asks for the newest position only.
    pub limit: usize,
    /// Time to wait for an event if there is none (`wait=`).
    pub wait: Duration,
}

/// Largest number of events of an answer to a poll without `limit=`.
const POLL_LIMIT: usize = 100;
/// Largest `limit=`.
const POLL_LIMIT_MAX: usize = 1_000;
/// Largest `wait=`. Many proxies cut requests that take longer.
const POLL_WAIT_MAX: Duration = Duration::from_secs(60);

/// Largest `rewind=`.
const REWIND_MAX: usize = 1_000;

/// Format of events (`format=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// Data as it was published.
    Data,
    /// JSON object with the fields of the message.
    Message,
    /// CloudEvent in JSON.
    CloudEvents,
}

/// Error of a request for a stream. Its text is for the reader.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamRequestError {
    /// A parameter is invalid: 400. The text names the parameter and its error.
    #[error("{0}")]
    Parameter(String),
    /// The reader accepts no media type of [`Delivery`]: 406.
    #[error("Accept rules out text/event-stream, application/x-ndjson and application/json")]
    NotAcceptable,
    /// The request names more topics than this limit: 400.
    #[error("topic: more than {0}; leave it out to get all topics")]
    TooManyTopics(usize),
}

/// Query parameters. Unknown ones are refused: a misspelled `topics=` would otherwise stream all
/// topics.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    #[serde(default)]
    pub topic: Vec<String>,
    pub last_event_id: Option<String>,
    pub since: Option<String>,
    pub rewind: Option<String>,
    pub latest: Option<String>,
    pub slow: Option<String>,
    pub filter: Option<String>,
    pub format: Option<String>,
    pub mode: Option<String>,
    pub limit: Option<String>,
    pub wait: Option<String>,
    pub ticket: Option<String>,
    pub presence: Option<String>,
    pub name: Option<String>,
}

/// Longest error text about a query, in characters.
const PROBLEM_CHARS_MAX: usize = 200;

impl Parameters {
    /// Parses the query of a request.
    ///
    /// # Errors
    /// Returns the error of a parameter that is malformed or unknown.
    pub(crate) fn of_query(query: &str) -> Result<Self, StreamRequestError> {
        let parsed = Query::<Self>::from_query(query);
        let unread = |text: String| {
            // The text repeats the invalid one, which can be as long as the query.
            StreamRequestError::Parameter(text.chars().take(PROBLEM_CHARS_MAX).collect())
        };
        match parsed {
            Ok(Query(parameters)) => Ok(parameters),
            Err(err) => Err(unread(format!("{}: {}", err.path(), err.source()))),
        }
    }
}

impl StreamRequest {
    /// Parses a request of `GET /events` that arrived at `now_ms`, with at most `topics_max`
    /// topics. `filters` has the filters of earlier requests.
    ///
    /// # Errors
    /// See [`StreamRequestError`].
    pub fn read(
        request: &HttpRequest,
        now_ms: u64,
        topics_max: usize,
        filters: &mut FilterCache,
    ) -> Result<Self, StreamRequestError> {
        let parameters = Parameters::of_query(request.query_string())?;
        let (delivery, is_named) = match parameters.mode.as_deref() {
            None => accepted(request).map_err(|_| StreamRequestError::NotAcceptable)?,
            Some("poll") => (Delivery::Poll, true),
            Some(other) => return bad("mode", other, "is not poll"),
        };
        let asked =
            Self::of(parameters, header_id(request), delivery, (now_ms, topics_max), filters)?;
        let is_event_source = is_named && delivery == Delivery::EventStream;
        Ok(Self { is_event_source, ..asked })
    }

    /// Creates the request for a stream of a WebSocket. `id_of_header` is the value of the header
    /// `Last-Event-ID` of the handshake.
    ///
    /// # Errors
    /// See [`StreamRequestError`].
    pub(crate) fn of_socket(
        parameters: Parameters,
        id_of_header: HeaderId,
        now_ms: u64,
        topics_max: usize,
        filters: &mut FilterCache,
    ) -> Result<Self, StreamRequestError> {
        if let Some(mode) = &parameters.mode {
            return bad("mode", mode, "is for /events");
        }
        let limits = (now_ms, topics_max);
        Self::of(parameters, id_of_header, Delivery::WebSocket, limits, filters)
    }

    fn of(
        parameters: Parameters,
        id_of_header: HeaderId,
        delivery: Delivery,
        (now_ms, topics_max): (u64, usize),
        filters: &mut FilterCache,
    ) -> Result<Self, StreamRequestError> {
        let format = format(parameters.format.as_deref(), delivery)?;
        let poll = poll_options(&parameters, delivery)?;
        let id_of_query = match parameters.last_event_id.as_deref() {
            Some(text) if !text.is_empty() => match text.parse() {
                Ok(id) => Some(id),
                Err(err) => return bad("last_event_id", text, &format!("is {err}")),
            },
            _ => None,
        };
        let since = start_since(parameters.since.as_deref(), now_ms)?;
        let (start, id) = match (id_of_header, id_of_query) {
            (Some(Ok(id)), _) | (None, Some(id)) => (Start::After(id), Some(id)),
            // An invalid id in the header is not an error: a browser would never reconnect, and its
            // page cannot change the header.
            (Some(Err(())), _) => (Start::Unknown, None),
            (None, None) => (since, None),
        };
        let fold = fold(parameters.rewind.as_deref(), parameters.latest.as_deref())?;
        // A reader that resumes has its state, and receives what has changed since.
        let fold = fold.filter(|_| matches!(start, Start::Live | Start::Since(_)));
        let start = if fold.is_some() && start == Start::Live { Start::Held } else { start };
        let slow = slow(parameters.slow.as_deref(), delivery)?;
        // The newest position is the same wherever reading begins.
        let is_position = delivery == Delivery::Poll && poll.limit == 0;
        let (start, fold) = if is_position { (Start::Live, None) } else { (start, fold) };
        let filter = filter(parameters.filter.as_deref(), filters)?;
        let topics = topics(&parameters.topic, topics_max)?;
        let (presence, name) = (parameters.presence.as_deref(), parameters.name.as_deref());
        let is_poll = delivery == Delivery::Poll;
        let presence = PresenceRequest::parse(presence, name, &topics, is_poll)
            .map_err(StreamRequestError::Parameter)?;
        let is_event_source = false;
        Ok(Self {
            topics,
            filter,
            start,
            fold,
            slow,
            presence: presence.map(Box::new),
            delivery,
            format,
            poll,
            id,
            is_event_source,
            ticket: parameters.ticket,
        })
    }
}

fn bad<T>(parameter: &str, text: &str, problem: &str) -> Result<T, StreamRequestError> {
    let shown: String = text.chars().take(64).collect();
    Err(StreamRequestError::Parameter(format!("{parameter}: {shown:?} {problem}")))
}

/// Id of a header, or an error if its text is no event id. `None` without the header.
pub(crate) type HeaderId = Option<Result<EventId, ()>>;

/// Parses the header in which `EventSource` sends its last id. An empty header counts as absent.
pub(crate) fn header_id(request: &HttpRequest) -> HeaderId {
    const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    let value = request.headers().get(LAST_EVENT_ID)?;
    let text = value.to_str().map(str::trim);
    if text.as_ref().is_ok_and(|text| text.is_empty()) {
        return None;
    }
    Some(text.map_err(|_| ()).and_then(|text| text.parse().map_err(|_| ())))
}

fn topics(lists: &[String], max: usize) -> Result<Vec<TopicPattern>, StreamRequestError> {
    let mut names = Vec::new();
    for name in lists.iter().flat_map(|list| list.split(',')) {
        let name = name.trim_ascii();
        match name.parse::<TopicPattern>() {
            Ok(pattern) => names.push(pattern),
            Err(err) => return Err(StreamRequestError::Parameter(format!("topic: {err}"))),
        }
    }
    if max < names.len() {
        return Err(StreamRequestError::TooManyTopics(max));
    }
    names.sort_by_cached_key(ToString::to_string);
    names.dedup();
    Ok(names)
}

/// Parses the name of a format. Data as it was published can contain line ends, so it cannot be a
/// line.
fn format(name: Option<&str>, delivery: Delivery) -> Result<EventFormat, StreamRequestError> {
    match (name, delivery) {
        (None | Some("data"), Delivery::EventStream | Delivery::WebSocket) => Ok(EventFormat::Data),
        (None | Some("message"), _) => Ok(EventFormat::Message),
        (Some("cloudevents"), _) => Ok(EventFormat::CloudEvents),
        (Some(other), Delivery::EventStream | Delivery::WebSocket) => {
            bad("format", other, "is not data, message or cloudevents")
        }
        (Some(other), _) => bad("format", other, "is not message or cloudevents"),
    }
}

fn poll_options(
    parameters: &Parameters,
    delivery: Delivery,
) -> Result<PollOptions, StreamRequestError> {
    let given = [("limit", &parameters.limit), ("wait", &parameters.wait)];
    let given = given.into_iter().find_map(|(name, text)| Some((name, text.as_deref()?)));
    if let (Some((name, text)), true) = (given, delivery != Delivery::Poll) {
        return bad(name, text, "is for polls of /events: add mode=poll");
    }
    let limit = match parameters.limit.as_deref().map(|text| (text, text.parse())) {
        None => POLL_LIMIT,
        Some((_, Ok(limit))) if limit <= POLL_LIMIT_MAX => limit,
        Some((text, _)) => {
            return bad("limit", text, &format!("is no number from 0 to {POLL_LIMIT_MAX}"));
        }
    };
    let wait = match parameters.wait.as_deref().map(|text| (text, span(text))) {
        None => Duration::ZERO,
        Some((_, Some(wait))) if wait <= POLL_WAIT_MAX => wait,
        Some((text, _)) => {
            let max = POLL_WAIT_MAX.as_secs();
            return bad("wait", text, &format!("is no time span up to {max} s, as in 20s"));
        }
    };
    Ok(PollOptions { limit, wait })
}

/// Parses a time span that is not negative. Days have 24 hours.
fn span(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let span = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(span).ok()
}

/// Parses the rule of `rewind=` or `latest=`.
fn fold(
    rewind: Option<&str>,
    latest: Option<&str>,
) -> Result<Option<FoldRule>, StreamRequestError> {
    let by = match latest {
        None => None,
        Some(text) if rewind.is_some() => {
            return bad("latest", text, "cannot be combined with rewind: choose one");
        }
        Some("key") => Some(FoldBy::OrderingKey),
        Some(text) => match text.strip_prefix("attributes.").filter(|name| !name.is_empty()) {
            Some(name) => Some(FoldBy::Attribute(name.into())),
            None => {
                return bad("latest", text, "is neither key nor an attribute, as in attributes.k");
            }
        },
    };
    match rewind.map(|text| (text, text.parse())) {
        None => Ok(by.map(FoldRule::newest)),
        Some((_, Ok(count))) if (1..=REWIND_MAX).contains(&count) => {
            Ok(Some(FoldRule { by: FoldBy::Topic, count }))
        }
        Some((text, _)) => bad("rewind", text, &format!("is no number from 1 to {REWIND_MAX}")),
    }
}

/// Parses `slow=`.
fn slow(text: Option<&str>, delivery: Delivery) -> Result<Slow, StreamRequestError> {
    match text {
        Some(text) if delivery == Delivery::Poll => bad("slow", text, "is for streams, not polls"),
        None | Some("gap") => Ok(Slow::Gap),
        Some("latest") => Ok(Slow::LATEST),
        Some(other) => bad("slow", other, "is not gap or latest"),
    }
}

/// Parses a filter. An empty one selects all events, as in Pub/Sub.
fn filter(
    text: Option<&str>,
    filters: &mut FilterCache,
) -> Result<Option<Filter>, StreamRequestError> {
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(|text| filters.parse(text)).transpose();
    parsed.map_err(|err| StreamRequestError::Parameter(format!("filter: {err}")))
}

/// Parses a time span before now, or an RFC 3339 time.
fn start_since(since: Option<&str>, now_ms: u64) -> Result<Start, StreamRequestError> {
    let Some(text) = since.filter(|text| !text.is_empty()) else { return Ok(Start::Live) };
    if let Some(span) = span(text)
        && let Ok(span_ms) = u64::try_from(span.as_millis())
    {
        return Ok(Start::Since(now_ms.saturating_sub(span_ms)));
    }
    // A plus in a query is decoded as a space, and many clients forget to write %2B.
    let time = text.replace(' ', "+").parse::<Timestamp>();
    if let Ok(time) = time
        && let Ok(time_ms) = u64::try_from(time.as_millisecond())
    {
        return Ok(Start::Since(time_ms));
    }
    bad("since", text, "is neither a time span, as in 10m, nor an RFC 3339 time")
}
