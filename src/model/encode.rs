//! Formats of streams.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
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

    /// Returns the name of the outlet that uses the format, for metrics and the log: `sse`,
    /// `ndjson`, `poll`, `websocket` or `grpc`.
    fn outlet(&self) -> &'static str;

    /// Encodes one event whole.
    fn event(&self, event: &Event) -> Bytes;

    /// Appends the events from the first one on that fit into `bytes_max` bytes of `batch`. Returns
    /// their number. A format whose events are stored encoded saves a copy of each here.
    fn append(&self, events: &[Arc<Event>], bytes_max: usize, batch: &mut BytesMut) -> usize {
        append_fitting(events.iter().map(|event| self.event(event)), bytes_max, batch)
    }

    /// Encodes one control message whole.
    fn control(&self, control: &Control) -> Bytes;

    /// Returns true if what this format encodes is written as it is, without chunks of HTTP.
    fn is_framed(&self) -> bool {
        false
    }
}

/// Appends encoded events until one does not fit into `bytes_max` bytes of `batch`. Returns the
/// number of those that fit.
pub(crate) fn append_fitting(
    encoded: impl Iterator<Item = impl AsRef<[u8]>>,
    bytes_max: usize,
    batch: &mut BytesMut,
) -> usize {
    let mut count = 0;
    for event in encoded {
        let event = event.as_ref();
        if bytes_max < batch.len() + event.len() {
            break;
        }
        batch.extend_from_slice(event);
        count += 1;
    }
    count
}

/// Handle to a format. Two handles are equal if they have the same name.
#[derive(Debug, Clone, Copy)]
pub struct Format(pub &'static dyn Encode);

impl Format {
    /// Returns the name of the format.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the name of the outlet that uses the format.
    pub fn outlet(self) -> &'static str {
        self.0.outlet()
    }

    /// Encodes one event whole.
    pub fn event(self, event: &Event) -> Bytes {
        self.0.event(event)
    }

    /// Appends the events from the first one on that fit into `bytes_max` bytes of `batch`. Returns
    /// their number.
    pub fn append(self, events: &[Arc<Event>], bytes_max: usize, batch: &mut BytesMut) -> usize {
        self.0.append(events, bytes_max, batch)
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

    fn outlet(&self) -> &'static str {
        "test"
    }

    fn event(&self, event: &Event) -> Bytes {
        format!("{} {}\n", event.id, String::from_utf8_lossy(&event.data())).into()
    }

    fn control(&self, control: &Control) -> Bytes {
        format!("{control:?}\n").into()
    }
}
