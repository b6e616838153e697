//! Follows a stream of events.
//!
//! ```text
//! cargo run --example subscribe -- [URL] [--count N]
//! ```
//!
//! Prints a line for each event: its id, its type and its data as a JSON string, with tabs between.
//! Exits after N events, or never. URL is <http://127.0.0.1:8080/events> if it is left out.
#![allow(clippy::print_stderr, reason = "a command speaks on stderr")]

use std::{collections::VecDeque, error::Error, io::Write as _, process::ExitCode, time::Duration};

use clap::{Arg, Command, value_parser};
use reqwest::{Client, Response, StatusCode, header};

/// The gateway writes something at least every 15 s (`--keep-alive`), so a longer silence is a
/// connection that died without a word, as after a laptop's sleep or a NAT's time-out.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The wait before the next try doubles from the server's `retry` up to this while tries fail.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let given = Command::new("subscribe")
        .about("Follows a stream of events")
        .arg(Arg::new("url").value_name("URL").default_value("http://127.0.0.1:8080/events"))
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("Exit after so many events"),
        )
        .get_matches();
    let url = given.get_one::<String>("url").cloned().unwrap_or_default();
    let count = given.get_one::<u64>("count").copied().unwrap_or(u64::MAX);
    match print(url, count).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            ExitCode::FAILURE
        }
    }
}

async fn print(url: String, count: u64) -> Result<(), Box<dyn Error>> {
    let client =
        Client::builder().connect_timeout(SILENCE_MAX).read_timeout(SILENCE_MAX).build()?;
    let mut follower =
        Follower { client, url, response: None, parser: Parser::default(), failures: 0 };
    let mut left = count;
    while 0 < left {
        let Event { id, kind, data } = follower.next().await?;
        if kind == "stream-gap" {
            // Events are gone before we could read them. What was built from events is no longer
            // right: an application loads its state from where it is kept, then goes on with what
            // follows.
            eprintln!("events were missed: {data}");
        }
        // The gateway's own. New ones may come: ignore those you do not know.
        if kind.starts_with("stream-") {
            continue;
        }
        // An application that keeps its state over its own restarts stores the id together with what
        // it did for the event, and begins with it: URL?last_event_id=ID.
        let data = serde_json::to_string(&data)?;
        writeln!(std::io::stdout(), "{id}\t{kind}\t{data}")?;
        left -= 1;
    }
    Ok(())
}

/// One stream of events over as many connections as it takes.
struct Follower {
    client: Client,
    url: String,
    response: Option<Response>,
    parser: Parser,
    /// Since the last event.
    failures: u32,
}

impl Follower {
    /// The next event; an error only if it is the same at the next try.
    async fn next(&mut self) -> Result<Event, Box<dyn Error>> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                self.failures = 0;
                return Ok(event);
            }
            match self.chunk().await {
                Ok(Some(chunk)) => {
                    self.parser.feed(&chunk);
                    continue;
                }
                Ok(None) => {}
                Err(Failure::Lost(err)) => {
                    let cause = err.source().map_or_else(String::new, |cause| format!(": {cause}"));
                    eprintln!("connection lost: {err}{cause}");
                }
                Err(Failure::Refused(problem)) => return Err(problem.into()),
            }
            self.response = None;
            let retry = self.parser.retry;
            let wait = retry.saturating_mul(2_u32.saturating_pow(self.failures)).min(WAIT_MAX);
            self.failures += 1;
            tokio::time::sleep(wait.max(retry)).await;
        }
    }

    /// The next bytes, of a new connection if there is none. None when the server ended it.
    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        let mut response = match self.response.take() {
            Some(response) => response,
            None => self.connect().await?,
        };
        let chunk = response.chunk().await?;
        self.response = Some(response);
        Ok(chunk)
    }

    async fn connect(&mut self) -> Result<Response, Failure> {
        // With this Accept the gateway turns us away, when it must, with a stream that says when to
        // retry.
        let mut request = self.client.get(&self.url).header(header::ACCEPT, "text/event-stream");
        if !self.parser.last_event_id.is_empty() {
            request = request.header("last-event-id", &self.parser.last_event_id);
        }
        let response = request.send().await?;
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let is_stream =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        match response.status() {
            StatusCode::OK if is_stream => {
                self.parser.begin();
                Ok(response)
            }
            StatusCode::OK => Err(Failure::Refused("not an event stream".to_owned())),
            // These pass: a proxy in front of the gateway, for one, while the gateway restarts.
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Lost(response.status().to_string().into()))
            }
            status if status.is_server_error() => Err(Failure::Lost(status.to_string().into())),
            status => Err(Failure::Refused(format!("{status} {}", response.text().await?))),
        }
    }
}

enum Failure {
    /// It may well work at the next try.
    Lost(Box<dyn Error>),
    /// It will not.
    Refused(String),
}

impl From<reqwest::Error> for Failure {
    fn from(err: reqwest::Error) -> Self {
        // The URL is wrong, for one.
        if err.is_builder() { Self::Refused(err.to_string()) } else { Self::Lost(err.into()) }
    }
}

struct Event {
    id: String,
    /// Its type, a word that Rust has taken.
    kind: String,
    data: String,
}

/// The parser of
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>.
struct Parser {
    /// Those that are whole and were not taken yet.
    events: VecDeque<Event>,
    /// What survives a connection: where to go on,
    last_event_id: String,
    /// and how long to wait before.
    retry: Duration,
    line: Vec<u8>,
    is_first_line: bool,
    after_cr: bool,
    id: String,
    kind: String,
    /// Each line of it with an LF.
    data: String,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            last_event_id: String::new(),
            retry: Duration::from_secs(3),
            line: Vec::new(),
            is_first_line: true,
            after_cr: false,
            id: String::new(),
            kind: String::new(),
            data: String::new(),
        }
    }
}

impl Parser {
    /// A connection begins. What an incomplete block left is dropped: the server sends all of it
    /// again, since its id does not count before its end.
    fn begin(&mut self) {
        *self = Self {
            id: self.last_event_id.clone(),
            last_event_id: std::mem::take(&mut self.last_event_id),
            retry: self.retry,
            ..Self::default()
        };
    }

    fn feed(&mut self, chunk: &[u8]) {
        let Some(last) = chunk.last() else { return };
        // A line ends with CR, LF or CRLF. A CR ends it at once, without a look at what follows,
        // which may not come for long; so an LF that comes in the next chunk belongs to that end.
        let mut rest = chunk;
        if self.after_cr {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        self.after_cr = *last == b'\r';
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (line, ending) = rest.split_at(end);
            self.line.extend_from_slice(line);
            self.end_of_line();
            rest = ending
                .strip_prefix(b"\r\n")
                .or_else(|| ending.split_first().map(|(_, rest)| rest))
                .unwrap_or_default();
        }
        self.line.extend_from_slice(rest);
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        // Only whole lines are decoded: a character may be split between two chunks.
        let line = String::from_utf8_lossy(&line);
        let mut line = &*line;
        if std::mem::take(&mut self.is_first_line) {
            // A byte order mark.
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_of_block();
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        // One space; a second one is data.
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => self.data.extend([value, "\n"]),
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().map_or(self.retry, Duration::from_millis);
            }
            // A comment has an empty name.
            _ => {}
        }
    }

    /// A block without data is no event, but its id counts: the gateway moves us past events that
    /// are not for us. An empty event has data: one empty line.
    fn end_of_block(&mut self) {
        self.id.clone_into(&mut self.last_event_id);
        let mut kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        if kind.is_empty() {
            "message".clone_into(&mut kind);
        }
        self.events.push_back(Event { id: self.id.clone(), kind, data });
    }
}
