//! The HTML standard's parser of event streams, sentence by sentence
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).
//! An oracle: nothing here is shared with the gateway.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    pub id: String,
    /// `message` if the block named none.
    pub event: String,
    pub data: String,
}

#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    begun: bool,
    after_cr: bool,
    data: String,
    event_type: String,
    /// "the last event ID buffer".
    id_buffer: String,
    /// "the last event ID string of the event source", set when a block ends.
    pub last_event_id: String,
    /// "the event source's reconnection time".
    pub retry: Option<u64>,
}

impl Parser {
    /// Begins where another stream ended.
    pub fn resume(&mut self, last_event_id: &str) {
        last_event_id.clone_into(&mut self.id_buffer);
        last_event_id.clone_into(&mut self.last_event_id);
    }

    /// Takes more of the stream and returns the events that it dispatches.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Dispatched> {
        let mut dispatched = Vec::new();
        for byte in bytes {
            // "A U+000D CARRIAGE RETURN U+000A LINE FEED character pair, a single U+000A LINE FEED
            // character not preceded by a U+000D, and a single U+000D not followed by a U+000A".
            let pair = self.after_cr && *byte == b'\n';
            self.after_cr = *byte == b'\r';
            match byte {
                _ if pair => {}
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    dispatched.extend(self.line_ended(&line));
                }
                _ => self.line.push(*byte),
            }
        }
        dispatched
    }

    fn line_ended(&mut self, line: &[u8]) -> Option<Dispatched> {
        // "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
        let line =
            if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.begun = true;
        let line = String::from_utf8_lossy(line).into_owned();
        if line.is_empty() {
            return self.dispatch();
        }
        // "If the line starts with a U+003A COLON character (:) Ignore the line."
        if line.starts_with(':') {
            return None;
        }
        let (field, value) = match line.split_once(':') {
            // "If value starts with a U+0020 SPACE character, remove it from value."
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line.as_str(), ""),
        };
        match field {
            "event" => value.clone_into(&mut self.event_type),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // "If the field value does not contain U+0000 NULL".
            "id" if !value.contains('\0') => value.clone_into(&mut self.id_buffer),
            // "If the field value consists of only ASCII digits".
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Dispatched> {
        // "Set the last event ID string of the event source to the value of the last event ID
        // buffer." Also for a block without data.
        self.id_buffer.clone_into(&mut self.last_event_id);
        let event_type = std::mem::take(&mut self.event_type);
        let mut data = std::mem::take(&mut self.data);
        // "If the data buffer is an empty string, set the data buffer and the event type buffer to
        // the empty string and return."
        if data.is_empty() {
            return None;
        }
        // "If the data buffer's last character is a U+000A LINE FEED (LF) character, then remove it".
        data.pop();
        let event = if event_type.is_empty() { "message".to_owned() } else { event_type };
        Some(Dispatched { id: self.last_event_id.clone(), event, data })
    }
}

#[test]
fn the_standards_own_examples() {
    let feed = |text: &str| Parser::default().feed(text.as_bytes());
    let data = |text: &str| feed(text).into_iter().map(|event| event.data).collect::<Vec<_>>();
    assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let seen = feed(stream);
    let ids: Vec<_> = seen.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["1", "", ""]);
    assert_eq!(seen[2].data, " third event");
    assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
    assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
    assert_eq!(data("\u{feff}data: a\r\rdata: b\r\n\r\n"), ["a", "b"]);
}
