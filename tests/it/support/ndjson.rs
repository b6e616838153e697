//! Parser of newline-delimited JSON streams. An oracle: nothing here is shared with the gateway.

use serde_json::Value;

use super::{parser::Dispatched, reader::Signal};

#[derive(Debug, Default)]
pub struct NdjsonParser {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    /// Id to resume after.
    last_event_id: String,
}

impl NdjsonParser {
    /// Takes more of the stream and returns the signals of the lines that have ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Signal> {
        let mut signals = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                signals.push(self.signal(&line));
            } else {
                self.line.push(*byte);
            }
        }
        signals
    }

    fn signal(&mut self, line: &[u8]) -> Signal {
        if line.is_empty() {
            return Signal::KeepAlive;
        }
        let object: Value = serde_json::from_slice(line).unwrap();
        let members = object.as_object().unwrap();
        // A CloudEvent has an id of its own beside the one to resume after.
        let id_in = |value: &Value| {
            value["lasteventid"].as_str().or(value["id"].as_str()).map(str::to_owned)
        };
        let control = members.iter().find(|(name, _)| name.starts_with("stream-"));
        let (event, data) = match control {
            Some((name, data)) => {
                assert_eq!(members.len(), 1, "{object}");
                (name.clone(), data.to_string())
            }
            None => ("message".to_owned(), text_of(&object)),
        };
        if let Some(id) = id_in(control.map_or(&object, |(_, data)| data)) {
            self.last_event_id = id;
        }
        let id = self.last_event_id.clone();
        if event == "stream-checkpoint" {
            return Signal::Checkpoint(id);
        }
        Signal::Event(Dispatched { id, event, data })
    }
}

/// Returns the data of a message as text.
fn text_of(message: &Value) -> String {
    match (&message["data"], &message["data_base64"]) {
        (Value::String(text), _) | (Value::Null, Value::String(text)) => text.clone(),
        (Value::Null, _) => String::new(),
        (value, _) => value.to_string(),
    }
}
