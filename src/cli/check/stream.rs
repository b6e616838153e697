//! Streams that a check opens.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::{
    check::probe::{ANSWER_MAX, Probe, failure},
    tail::event_stream::{Parser, StreamEvent},
};

/// Open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) response: Response,
    parser: Parser,
    /// Events that no caller has taken.
    events: VecDeque<StreamEvent>,
    /// Number of bytes that came.
    bytes: usize,
}

/// Reason why there is no stream.
#[derive(Debug)]
pub(super) enum NoStream {
    /// No connection, or one that broke before an answer.
    Unreachable(String),
    /// No head of an answer within [`ANSWER_MAX`].
    Silent,
    /// Answer with another status than 200.
    Refused(StatusCode, String),
    /// Answer of another media type than `text/event-stream`.
    OtherType(String),
}

/// Result of one wait for bytes of a stream.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes came. They may have completed events.
    Bytes,
    /// The stream ended, or its connection broke.
    Cut(&'static str),
    /// The stream has sent more than [`BYTES_MAX`].
    TooMuch,
}

/// Limit on the bytes that are read of one stream.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Limit on the bytes that are read of an answer that is no stream.
const DETAIL_MAX: usize = 4 * 1024;

impl Stream {
    /// Opens a stream, after an event if `after` has its id. `encodings` are those that the client
    /// accepts.
    pub(super) async fn open(
        probe: &Probe,
        after: Option<&str>,
        encodings: &str,
    ) -> Result<Self, NoStream> {
        let mut request = probe.read(Method::GET).header(header::ACCEPT_ENCODING, encodings);
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let response = match timeout(ANSWER_MAX, request.send()).await {
            Err(_) => return Err(NoStream::Silent),
            Ok(Err(err)) if err.is_timeout() && !err.is_connect() => return Err(NoStream::Silent),
            Ok(Err(err)) => return Err(NoStream::Unreachable(failure(&err))),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status != StatusCode::OK {
            return Err(NoStream::Refused(status, detail(response).await));
        }
        let media = response.headers().get(header::CONTENT_TYPE);
        let media = media.and_then(|value| value.to_str().ok()).unwrap_or("without a type");
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(NoStream::OtherType(media.to_owned()));
        }
        let parser = Parser::new(after.unwrap_or_default());
        Ok(Self { response, parser, events: VecDeque::new(), bytes: 0 })
    }

    /// Waits for the next bytes, and parses them.
    pub(super) async fn part(&mut self) -> Part {
        match self.response.chunk().await {
            Ok(None) => Part::Cut("its answer ended"),
            // The error says what the parser missed, and not who closed the connection.
            Err(_) => Part::Cut("its connection was closed"),
            Ok(Some(bytes)) => {
                self.bytes += bytes.len();
                match self.parser.parse(&bytes) {
                    Ok(events) if self.bytes <= BYTES_MAX => {
                        self.events.extend(events);
                        Part::Bytes
                    }
                    _ => Part::TooMuch,
                }
            }
        }
    }

    /// Takes an event that has come.
    pub(super) fn take(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Waits for the next event. Returns `None` if none comes within `limit`, or none can come.
    pub(super) async fn next(&mut self, limit: Duration) -> Option<StreamEvent> {
        let until = Instant::now() + limit;
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            let left = until.checked_duration_since(Instant::now())?;
            match timeout(left, self.part()).await {
                Ok(Part::Bytes) => {}
                Ok(Part::Cut(_) | Part::TooMuch) | Err(_) => return None,
            }
        }
    }
}

/// Returns a member of the data of a control message, as text.
pub(super) fn member(event: &StreamEvent, name: &str) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    match data.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// Returns the `detail` of an answer that is no stream, after a colon. Empty if there is none.
async fn detail(mut response: Response) -> String {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if DETAIL_MAX < body.len() {
                break;
            }
        }
    };
    timeout(ANSWER_MAX, read).await.ok();
    let json = serde_json::from_slice::<Value>(&body).ok();
    let detail = json.as_ref().and_then(|json| json.get("detail")?.as_str());
    detail.map(|text| format!(": {text}")).unwrap_or_default()
}
