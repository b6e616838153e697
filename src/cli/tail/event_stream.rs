//! Parser of event streams
//! ([HTML standard, section 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)).

/// Event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// Type: `message` if the stream names none.
    pub event: String,
    /// Data: the `data` lines, joined by line feeds.
    pub data: String,
    /// Last event id when the event was dispatched.
    pub id: String,
}

/// Limit of the bytes of one event and its unfinished line. A push is at most 32 MiB, and a byte of
/// it takes at most 6 bytes as JSON.
const EVENT_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Error of a stream with an event of more than [`EVENT_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {EVENT_MAX_BYTES} bytes: is this a stream of a gateway?")]
pub struct TooLargeError;

/// Parser of one stream. It accepts bytes in parts of any size.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes of the line that has not ended.
    line: Vec<u8>,
    /// True after the first line, before which a byte order mark is allowed.
    begun: bool,
    /// True if the last byte was a carriage return: a line feed after it ends no line.
    after_return: bool,
    /// Type of the event that has not ended.
    event: String,
    /// Data of the event that has not ended, with a line feed after each line.
    data: String,
    /// Value of the last `id` line.
    id: String,
    /// Last event id: `id` when the last event ended.
    last_event_id: String,
    /// Value of the last `retry` line, in milliseconds.
    retry_ms: Option<u64>,
}

impl Parser {
    /// Creates a parser of a stream that was opened with this last event id.
    pub fn new(last_event_id: &str) -> Self {
        Self {
            id: last_event_id.to_owned(),
            last_event_id: last_event_id.to_owned(),
            ..Self::default()
        }
    }

    /// Returns the id to resume from. Empty: none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Returns the time after which to reconnect, in milliseconds, if the stream named one.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Parses the next bytes, and returns the events that they complete. An event that the stream
    /// does not complete is discarded, as the standard says.
    ///
    /// # Errors
    /// Fails if an event is too large.
    pub fn parse(&mut self, mut bytes: &[u8]) -> Result<Vec<StreamEvent>, TooLargeError> {
        let mut events = Vec::new();
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\r', b'\n', bytes);
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.line.extend_from_slice(part);
            if EVENT_MAX_BYTES < self.line.len() + self.data.len() {
                return Err(TooLargeError);
            }
            let Some((end, rest)) = rest.split_first() else { break };
            self.after_return = *end == b'\r';
            let line = std::mem::take(&mut self.line);
            events.extend(self.end_line(&line));
            bytes = rest;
        }
        Ok(events)
    }

    /// Interprets a line. Returns an event if the line ends one.
    fn end_line(&mut self, line: &[u8]) -> Option<StreamEvent> {
        let begun = std::mem::replace(&mut self.begun, true);
        let mark = b"\xef\xbb\xbf";
        let line = if begun { line } else { line.strip_prefix(mark).unwrap_or(line) };
        if line.is_empty() {
            return self.end_event();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            // A comment, or a field that the standard does not know.
            _ => {}
        }
        None
    }

    /// Ends an event. Returns nothing if it has no data.
    fn end_event(&mut self) -> Option<StreamEvent> {
        self.id.clone_into(&mut self.last_event_id);
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        // Without a `data` line there is no line feed.
        data.pop()?;
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(StreamEvent { event, data, id: self.last_event_id.clone() })
    }
}
