//! Client of a stream: opens it, and resumes it after each cut without losing an event.

use std::{path::PathBuf, time::Duration};

use rand::RngExt as _;
use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::Value;

use crate::{
    cli::{
        client::client,
        tail::event_stream::{Parser, StreamEvent},
    },
    http::problem::error_chain,
};

/// Limit on the time of opening a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a connection counts as broken. A gateway sends a comment every 15 s unless
/// `--keep-alive` says otherwise; a longer interval only causes needless, harmless resumptions.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Time before a resumption when the stream has named none.
const RETRY_MS: u64 = 2_000;
/// Longest time before a resumption.
const RETRY_MAX_MS: u64 = 30_000;

/// Token of the reader.
#[derive(Debug, Clone)]
pub(super) enum Token {
    /// The token itself.
    Text(String),
    /// File that holds the token. It is read for each connection, so that a renewed token is used.
    File(PathBuf),
}

/// Stream that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    client: Client,
    url: Url,
    token: Option<Token>,
    /// Id of the last event, from which the next connection resumes. Empty: none.
    last_event_id: String,
    /// Time before the next connection, in milliseconds, as the stream named it.
    retry_ms: u64,
    /// Number of connections that failed since the last event.
    failures: u32,
    /// True after the first connection was opened.
    opened: bool,
}

/// Reason why a connection ended.
#[derive(Debug)]
enum Cut {
    /// The next connection may succeed, after the time that the answer names.
    Temporary(String, Option<Duration>),
    /// No other connection can succeed.
    Permanent(String),
    /// The receiver stopped the stream.
    Done,
}

/// Decision of the receiver of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Continue,
    /// Close the stream.
    Stop,
}

impl Follow {
    /// Creates the client of a stream. Nothing is sent yet.
    pub(super) fn new(
        url: Url,
        token: Option<Token>,
        last_event_id: String,
    ) -> reqwest::Result<Self> {
        let client = client(url.as_str()).connect_timeout(OPEN_TIMEOUT).read_timeout(SILENCE_MAX);
        let (retry_ms, failures) = (RETRY_MS, 0);
        let client = client.build()?;
        Ok(Self { client, url, token, last_event_id, retry_ms, failures, opened: false })
    }

    /// Follows the stream until `receive` stops it. `report` gets a text for each cut.
    ///
    /// # Errors
    /// Returns a text that says what is wrong when no connection can succeed: the request is
    /// refused, no gateway answers at the beginning, or the answer is no event stream.
    pub(super) async fn run(
        &mut self,
        mut receive: impl FnMut(StreamEvent) -> Next,
        mut report: impl FnMut(&str),
    ) -> Result<(), String> {
        loop {
            let (problem, wait) = match self.connect(&mut receive).await {
                Cut::Done => return Ok(()),
                Cut::Permanent(problem) => return Err(problem),
                Cut::Temporary(problem, wait) => (problem, wait),
            };
            if !self.opened && wait.is_none() {
                return Err(problem);
            }
            let wait = wait.unwrap_or_else(|| self.back_off());
            self.failures = self.failures.saturating_add(1);
            report(&format!("{problem}. Next connection in {:.1} s", wait.as_secs_f64()));
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns the time before the next connection: as the stream named it, doubled for each failed
    /// connection, and up to a quarter longer, since a restart cuts many clients at once.
    fn back_off(&self) -> Duration {
        let doubled = self.retry_ms.saturating_mul(1 << self.failures.min(10));
        let limit = RETRY_MAX_MS.max(self.retry_ms);
        Duration::from_millis(doubled.min(limit)).mul_f64(rand::rng().random_range(1.0..1.25))
    }

    /// Opens one connection, and passes its events on until it ends.
    async fn connect(&mut self, receive: &mut impl FnMut(StreamEvent) -> Next) -> Cut {
        let mut response = match self.open().await {
            Ok(response) => response,
            Err(cut) => return cut,
        };
        self.opened = true;
        let mut parser = Parser::new(&self.last_event_id);
        loop {
            let cut = match response.chunk().await {
                Ok(Some(bytes)) => match parser.parse(&bytes) {
                    Ok(events) => events.into_iter().find_map(|event| {
                        self.failures = 0;
                        (receive(event) == Next::Stop).then_some(Cut::Done)
                    }),
                    Err(err) => Some(Cut::Permanent(err.to_string())),
                },
                Ok(None) => Some(Cut::Temporary("the gateway closed the stream".to_owned(), None)),
                Err(err) => Some(Cut::Temporary(error_chain(&err), None)),
            };
            parser.last_event_id().clone_into(&mut self.last_event_id);
            self.retry_ms = parser.retry_ms().unwrap_or(self.retry_ms);
            if let Some(cut) = cut {
                return cut;
            }
        }
    }

    /// Sends the request, and checks the answer as the HTML standard says. Differs: an error that
    /// passes is tried again.
    async fn open(&self) -> Result<Response, Cut> {
        let mut request = self.client.get(self.url.clone());
        request = request.header(header::ACCEPT, "text/event-stream");
        request = request.header(header::CACHE_CONTROL, "no-store");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.read().map_err(Cut::Permanent)?);
        }
        if !self.last_event_id.is_empty() {
            request = request.header("last-event-id", &self.last_event_id);
        }
        let response = request.send().await.map_err(|err| {
            let hint = "\nIs a gateway running there? Start one with: stream-events dev";
            let hint = if err.is_connect() && !self.opened { hint } else { "" };
            Cut::Temporary(format!("{}{hint}", error_chain(&err)), None)
        })?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            let problem = "the server answered 204 No Content: it wants no further connection";
            return Err(Cut::Permanent(problem.to_owned()));
        }
        if status != StatusCode::OK {
            return Err(refused(response).await);
        }
        let of = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let media = of(header::CONTENT_TYPE).unwrap_or("no type");
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(Cut::Permanent(format!(
                "the answer is {media}, expected text/event-stream: is {} a gateway?",
                self.url
            )));
        }
        Ok(response)
    }
}

/// Returns the reason of an answer that is no stream.
async fn refused(response: Response) -> Cut {
    let status = response.status();
    let seconds = response.headers().get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await.unwrap_or_default();
    let detail = serde_json::from_str::<Value>(&text).ok();
    let detail = detail.as_ref().and_then(|json| json.get("detail")?.as_str()).unwrap_or(&text);
    let problem = format!("the gateway answered {status}: {}", detail.trim());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Cut::Temporary(problem, seconds.map(Duration::from_secs));
    }
    Cut::Permanent(problem)
}

impl Token {
    /// Returns the token.
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|err| format!("--token-file: {}: {err}", path.display()))?;
                Ok(text.trim().to_owned())
            }
        }
    }
}
