//! Output of `tail`: events to standard output, all else to standard error.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::{Value, value::RawValue};

use crate::cli::tail::event_stream::StreamEvent;

/// Form of the printed events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Time, topic, type and data, on one line for people.
    Text,
    /// Pub/Sub message as JSON, one object a line.
    Message,
    /// Data as it was published, with a line feed after it.
    Data,
    /// CloudEvent as JSON, one object a line.
    CloudEvents,
}

/// Forms by their names in `--format`.
pub(super) const FORMS: [(&str, Form); 4] = [
    ("text", Form::Text),
    ("message", Form::Message),
    ("data", Form::Data),
    ("cloudevents", Form::CloudEvents),
];

impl Form {
    /// Returns the value of `format=` with which the gateway sends what this form needs.
    pub(super) fn query(self) -> &'static str {
        match self {
            Self::Text | Self::Message => "message",
            Self::Data => "data",
            Self::CloudEvents => "cloudevents",
        }
    }
}

/// Printer of events.
#[derive(Debug)]
pub(super) struct Printer<W> {
    pub(super) out: W,
    pub(super) form: Form,
    /// True to use colors: the escape sequences of [ECMA-48, section
    /// 8.3.117](https://ecma-international.org/publications-and-standards/standards/ecma-48/).
    pub(super) is_colored: bool,
    /// True if `out` is a terminal. Control characters are then escaped: an event could otherwise
    /// send commands to the terminal.
    pub(super) is_terminal: bool,
}

/// Escape sequences of the colors.
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

impl<W: Write> Printer<W> {
    /// Prints one event.
    ///
    /// # Errors
    /// Fails if `out` cannot be written, for example because its reader has ended.
    pub(super) fn event(&mut self, event: &StreamEvent) -> io::Result<()> {
        let text = match self.form {
            Form::Text => self.text(event),
            _ => self.safe(&event.data),
        };
        self.line(&text)
    }

    /// Prints a control message about missing events as a line of JSON, if the form is JSON: a
    /// program that reads the output has to learn about them too. Prints no other control message.
    ///
    /// # Errors
    /// Fails like [`Printer::event`].
    pub(super) fn control(&mut self, event: &StreamEvent) -> io::Result<()> {
        let is_loss = matches!(event.event.as_str(), "stream-gap" | "stream-folded");
        let is_json = matches!(self.form, Form::Message | Form::CloudEvents);
        if !is_loss || !is_json || self.is_terminal {
            return Ok(());
        }
        self.line(&format!("{{\"{}\":{}}}", event.event, event.data))
    }

    /// Writes a line at once: its reader may wait for it.
    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Returns the line of an event for people.
    fn text(&self, event: &StreamEvent) -> String {
        // Keeps the text of each member: a `Value` would change large numbers and the order of
        // members.
        let members: BTreeMap<String, &RawValue> =
            serde_json::from_str(&event.data).unwrap_or_default();
        let text = |name: &str| serde_json::from_str::<String>(members.get(name)?.get()).ok();
        let field = |name: &str| text(name).unwrap_or_else(|| "-".to_owned());
        // RFC 3339 in UTC: the time of day and its zone stand after the T.
        let time = field("publish_time");
        let time = time.split_once('T').map_or(&*time, |(_, time)| time);
        let data = match members.get("data") {
            Some(json) => text("data").unwrap_or_else(|| json.get().to_owned()),
            None => text("data_base64").map(|bytes| format!("base64:{bytes}")).unwrap_or_default(),
        };
        let mut line = self.color(DIM, time);
        write!(line, " {}", self.color(CYAN, &field("topic"))).ok();
        if event.event != "message" {
            write!(line, " {}", self.color(YELLOW, &event.event)).ok();
        }
        write!(line, " {}", self.safe(&data)).ok();
        line
    }

    /// Returns a text in a color, if colors are used.
    fn color(&self, color: &str, text: &str) -> String {
        let text = self.safe(text);
        if self.is_colored { format!("{color}{text}{RESET}") } else { text }
    }

    /// Returns a text without the control characters that a terminal obeys. Line feeds and tabs
    /// stay.
    fn safe(&self, text: &str) -> String {
        if self.is_terminal { escape_controls(text) } else { text.to_owned() }
    }
}

/// Escapes control characters except line feeds and tabs, as `\u{1b}`.
pub(in crate::cli) fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Returns a sentence about a control message that a reader has to know, and `None` for others.
pub(super) fn notice(event: &StreamEvent) -> Option<String> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or("-");
    match event.event.as_str() {
        "stream-gap" => {
            let topics = data.get("topics").and_then(Value::as_array).map(Vec::as_slice);
            let topics: Vec<_> = topics.into_iter().flatten().filter_map(Value::as_str).collect();
            let topics = if topics.is_empty() { "any".to_owned() } else { topics.join(", ") };
            Some(format!(
                "gap: events may be missing after {} up to {} (topics: {topics}; reason: {})",
                text("after"),
                text("upto"),
                text("reason")
            ))
        }
        "stream-end" => Some(format!("the gateway ends the stream: {}", text("reason"))),
        "stream-auth" => {
            let left = data.get("expires_in").and_then(Value::as_u64).filter(|left| *left <= 60)?;
            Some(format!("the token expires in {left} s"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Printer, StreamEvent, escape_controls};

    fn printed(form: Form, is_colored: bool, is_terminal: bool, data: &str) -> String {
        let event = StreamEvent { event: "made".into(), data: data.into(), id: "1-1".into() };
        let mut out = Vec::new();
        Printer { out: &mut out, form, is_colored, is_terminal }.event(&event).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_for_people_has_time_topic_type_and_data() {
        let data = r#"{"topic":"a","publish_time":"2021-02-26T19:13:55.749Z","data":{"id":1}}"#;
        assert_eq!(printed(Form::Text, false, true, data), "19:13:55.749Z a made {\"id\":1}\n");
        let numbers = r#"{"topic":"a","data":{"z":123456789012345678901234567890,"a":1.10}}"#;
        let line = "- a made {\"z\":123456789012345678901234567890,\"a\":1.10}\n";
        assert_eq!(printed(Form::Text, false, true, numbers), line);
        let colored = printed(Form::Text, true, true, data);
        assert!(colored.starts_with("\x1b[2m19:13:55.749Z\x1b[0m \x1b[36ma\x1b[0m"), "{colored:?}");
        let binary = r#"{"topic":"a","data_base64":"AA=="}"#;
        assert_eq!(printed(Form::Text, false, true, binary), "- a made base64:AA==\n");
        assert_eq!(printed(Form::Text, false, true, "no JSON"), "- - made \n");
    }

    /// Attack: an event that sets the title of the terminal, or clears it.
    #[test]
    fn a_terminal_gets_no_control_characters_of_events() {
        assert_eq!(escape_controls("a\x1b[2J\u{9b}\x7f\tb\n"), "a\\u{1b}[2J\\u{9b}\\u{7f}\tb\n");
        let hostile = r#"{"topic":"a","data":"\u001b]0;owned\u0007"}"#;
        assert!(!printed(Form::Text, false, true, hostile).contains('\x1b'));
        assert!(!printed(Form::Data, false, true, "\x1b[2J").contains('\x1b'));
        assert_eq!(printed(Form::Data, false, false, "\x1b[2J"), "\x1b[2J\n");
    }
}
