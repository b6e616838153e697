//! Formats of streams.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use bytes::{Bytes, BytesMut};

use crate::model::{control::Control, event::Event};

/// Encoding of events and control messages in one format.
///
/// A worker encodes an event once for all of its readers that follow the same topics in the same
/// format. Neither method may return empty bytes: an empty chunk ends an HTTP response.
pub trait Encode: fmt::Debug + Sync {
    /// Returns the name of the format. No two formats have the same.
    fn name(&self) -> &'static str;

    /// Encodes one event whole.
    fn event(&self, event: &Event) -> Bytes;

    /// Appends one event to `batch`. A format whose events are stored encoded saves a copy here.
    fn append(&self, event: &Event, batch: &mut BytesMut) {
        batch.extend_from_slice(&self.event(event));
    }

    /// Encodes one control message whole.
    fn control(&self, control: &Control) -> Bytes;

    /// Returns true if what this format encodes is written as it is, without chunks of HTTP.
    fn is_framed(&self) -> bool {
        false
    }
}

/// Handle to a format. Two handles are equal if they have the same name.
#[derive(Debug, Clone, Copy)]
pub struct Format(pub &'static dyn Encode);

impl Format {
    /// Encodes one event whole.
    pub fn event(self, event: &Event) -> Bytes {
        self.0.event(event)
    }

    /// Appends one event to `batch`.
    pub fn append(self, event: &Event, batch: &mut BytesMut) {
        self.0.append(event, batch);
    }

    /// Encodes one control message whole.
    pub fn control(self, control: &Control) -> Bytes {
        self.0.control(control)
    }

    /// Returns true if what the format encodes is written as it is, without chunks of HTTP.
    pub fn is_framed(self) -> bool {
        self.0.is_framed()
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Format {}

impl Hash for Format {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

/// Format for tests: one line for each event or control message.
#[cfg(test)]
pub(crate) const LINES: Format = Format(&Lines);

#[cfg(test)]
#[derive(Debug)]
struct Lines;

#[cfg(test)]
impl Encode for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn event(&self, event: &Event) -> Bytes {
        format!("{} {}\n", event.id, String::from_utf8_lossy(&event.data())).into()
    }

    fn control(&self, control: &Control) -> Bytes {
        format!("{control:?}\n").into()
    }
}
