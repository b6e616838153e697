//! Events: id, order, and the bytes of the event stream, encoded once for all readers.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use memchr::memchr2_iter;

use crate::model::message::Message;

/// Id of an event, `<unix ms>-<sequence>`. Defines one order over the events of all topics.
///
/// The format is that of a [Redis stream's
/// id](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids), compared as a pair of
/// integers. A process without Redis assigns ids that contain a random number of that process above
/// the 32nd bit of the sequence. This number is the id's history: it tells which process (or which
/// log) assigned the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Unix time in milliseconds. Never decreases within a history.
    pub time_ms: u64,
    /// Number that orders the events of one millisecond. Its upper bits are the history.
    pub sequence: u64,
}

/// Error for text that is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected <unix ms>-<sequence>, as in 1763690177349-5648324730880001")]
pub struct ParseEventIdError;

/// Bit of the sequence at which the history begins. The sequences of Redis stay below it, so its
/// ids have the history 0.
const HISTORY_SHIFT: u32 = 32;
/// Largest history: 21 bits. With the 32 bits of the counter, a sequence stays within the 53 bits
/// that a JavaScript number represents exactly.
pub const HISTORY_MAX: u64 = (1 << 21) - 1;
/// Length of the longest id in bytes: two `u64` and the dash. The ids that this program assigns
/// have at most 31.
const ID_LEN_MAX: usize = 41;

impl EventId {
    /// Smallest id, less than every id that is assigned.
    pub const ZERO: Self = Self { time_ms: 0, sequence: 0 };
    /// Largest id.
    pub const MAX: Self = Self { time_ms: u64::MAX, sequence: u64::MAX };

    /// Returns the first id of `history` at `time_ms`. Bits of `history` above [`HISTORY_MAX`] are
    /// ignored.
    pub fn start_of(history: u64, time_ms: u64) -> Self {
        Self { time_ms, sequence: (history & HISTORY_MAX) << HISTORY_SHIFT }
    }

    /// Returns an id less than every id that `history` assigns from `time_ms` on, and greater than
    /// those that it assigned before. The id belongs to `history`, so that a reader can resume
    /// from it.
    pub fn before(time_ms: u64, history: u64) -> Self {
        match time_ms.checked_sub(1) {
            Some(time_ms) => {
                let start = Self::start_of(history, time_ms);
                Self { time_ms, sequence: start.sequence | u64::from(u32::MAX) }
            }
            None => Self::start_of(history, 0),
        }
    }

    /// Returns the random number of the process that assigned the id, or 0 for an id of Redis.
    pub fn history(self) -> u64 {
        self.sequence >> HISTORY_SHIFT
    }

    /// Returns the id to assign after `self` at the time `now_ms`. It is greater than `self` even
    /// if the clock went back.
    pub fn next(self, now_ms: u64) -> Self {
        // The counter is not reset each millisecond, so a busy gateway fills it in some days. It
        // must not overflow into the bits of the history: it restarts in the next millisecond.
        let counter_full = self.sequence & u64::from(u32::MAX) == u64::from(u32::MAX);
        if counter_full {
            return Self::start_of(self.history(), now_ms.max(self.time_ms + 1));
        }
        Self { time_ms: now_ms.max(self.time_ms), sequence: self.sequence + 1 }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time_ms, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, ParseEventIdError> {
        let number = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with('0');
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if canonical && plain { digits.parse().ok() } else { None }
        };
        if ID_LEN_MAX < text.len() {
            return Err(ParseEventIdError);
        }
        let (time_ms, sequence) = text.split_once('-').ok_or(ParseEventIdError)?;
        Ok(Self {
            time_ms: number(time_ms).ok_or(ParseEventIdError)?,
            sequence: number(sequence).ok_or(ParseEventIdError)?,
        })
    }
}

/// Event as every reader receives it.
#[derive(Debug)]
pub struct Event {
    /// Id of the event, which defines the order over all topics.
    pub id: EventId,
    /// Block of the event stream, from the `id:` line to the empty line.
    pub frame: Bytes,
    /// Time at which Pub/Sub received the message, in Unix milliseconds.
    pub publish_time_ms: Option<u64>,
}

/// Memory of an event beside its frame, in bytes: its fields, its reference counts and its entries
/// in its topic's ring and in the timeline.
const EVENT_OVERHEAD_BYTES: usize = 200;

impl Event {
    /// Returns the memory that counts against the limits of the rings, in bytes.
    pub fn size(&self) -> usize {
        self.frame.len() + EVENT_OVERHEAD_BYTES
    }
}

/// Event without an id. Holds the result of all work that can be done outside the critical section
/// in which ids are assigned.
#[derive(Debug)]
pub struct Draft {
    /// [`HEADROOM`] bytes for the `id:` line, then the rest of the block.
    buffer: BytesMut,
    publish_time_ms: Option<u64>,
}

/// Begins the `id:` line.
const ID_FIELD: &[u8] = b"id: ";
/// Length of the longest `id:` line, in bytes.
const HEADROOM: usize = ID_FIELD.len() + ID_LEN_MAX + 1;

impl Draft {
    /// Encodes a message as a block of an event stream
    /// (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>):
    /// an `event:` line if the message names a valid type, and a `data:` line for each line of its
    /// data. Data that is not UTF-8 is encoded in base64, since a stream can contain only UTF-8.
    pub fn new(message: &Message) -> Self {
        let event_type = message.attributes.get("event").filter(|name| is_event_type(name));
        let encoded;
        let text = if let Ok(text) = str::from_utf8(&message.data) {
            text
        } else {
            encoded = STANDARD.encode(&message.data);
            &encoded
        };
        let type_len = event_type.map_or(0, |name| name.len() + "event: \n".len());
        // The exact capacity: a buffer that doubles would hold memory that `size` does not count.
        let line_ends = line_ends(text).count();
        let text_len = text.len() + "data: \n".len() * (line_ends + 1) + 1;
        let mut buffer = BytesMut::with_capacity(HEADROOM + type_len + text_len);
        buffer.resize(HEADROOM, 0);
        if let Some(name) = event_type {
            for part in ["event: ", name, "\n"] {
                buffer.extend_from_slice(part.as_bytes());
            }
        }
        write_data(&mut buffer, text);
        buffer.extend_from_slice(b"\n");
        Self { buffer, publish_time_ms: message.publish_time_ms }
    }

    /// Writes the `id:` line and returns the event. The cost does not depend on the size of the
    /// data.
    pub fn seal(mut self, id: EventId) -> Arc<Event> {
        // Same text as `EventId`'s `Display`, many times as fast as `core::fmt`.
        let (mut time_ms, mut sequence) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (time_ms, sequence) = (time_ms.format(id.time_ms), sequence.format(id.sequence));
        let line = [ID_FIELD, time_ms.as_bytes(), b"-", sequence.as_bytes(), b"\n"];
        let start = HEADROOM.saturating_sub(line.iter().map(|part| part.len()).sum());
        let mut id_line = self.buffer.get_mut(start..).unwrap_or_default();
        for part in line {
            id_line.put_slice(part);
        }
        let mut frame = self.buffer.freeze();
        frame.advance(start);
        Arc::new(Event { id, frame, publish_time_ms: self.publish_time_ms })
    }
}

/// Returns the position and the length of each line end in `text`. CR, LF and CRLF are one line
/// end each.
fn line_ends(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let bytes = text.as_bytes();
    memchr2_iter(b'\r', b'\n', bytes).filter_map(move |at| {
        let after_cr = || at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'\r');
        match bytes.get(at..)? {
            [b'\n', ..] if after_cr() => None,
            [b'\r', b'\n', ..] => Some((at, 2)),
            _ => Some((at, 1)),
        }
    })
}

/// Writes one `data:` line for each line of `text`. A bare CR is a line end for the reader's
/// parser: written unchanged, it would let the data forge fields (CWE-93).
fn write_data(buffer: &mut BytesMut, text: &str) {
    let mut from = 0;
    for (end, len) in line_ends(text).chain([(text.len(), 0)]) {
        buffer.extend_from_slice(b"data: ");
        buffer.extend_from_slice(text.get(from..end).unwrap_or_default().as_bytes());
        buffer.extend_from_slice(b"\n");
        from = end + len;
    }
}

/// Returns true if an application may use `name` as the type of an event. Rejects the types of the
/// gateway's own events (`stream-…`), those of `EventSource` (`open`, `error`), and names that
/// would end the line and forge other fields (CWE-93).
fn is_event_type(name: &str) -> bool {
    !name.is_empty()
        && name != "open"
        && name != "error"
        && !name.starts_with("stream-")
        && !name.contains(['\r', '\n', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8], event: Option<&str>) -> String {
        let message = Message {
            topic: "orders".parse().unwrap(),
            data: Bytes::copy_from_slice(data),
            attributes: event
                .map(|name| ("event".to_owned(), name.to_owned()))
                .into_iter()
                .collect(),
            ordering_key: None,
            message_id: None,
            publish_time_ms: None,
        };
        let id = EventId { time_ms: 17, sequence: 4 };
        let event = Draft::new(&message).seal(id);
        String::from_utf8(event.frame.to_vec()).unwrap()
    }

    #[test]
    fn messages_are_encoded_as_blocks() {
        assert_eq!(frame(b"{\"id\":1}", None), "id: 17-4\ndata: {\"id\":1}\n\n");
        assert_eq!(frame(b"", None), "id: 17-4\ndata: \n\n");
        assert_eq!(
            frame(b"several\nlines\rwith\r\neol", Some("type")),
            "id: 17-4\nevent: type\ndata: several\ndata: lines\ndata: with\ndata: eol\n\n"
        );
        assert_eq!(frame(b" x\n", None), "id: 17-4\ndata:  x\ndata: \n\n");
        assert_eq!(frame(b"\n\r", None), "id: 17-4\ndata: \ndata: \ndata: \n\n");
        assert_eq!(frame(&[0xff, 0xfe], None), "id: 17-4\ndata: //4=\n\n");
    }

    #[test]
    fn invalid_event_types_are_omitted() {
        for name in ["", "open", "error", "stream-end", "a\nid: 9", "a\rb", "a\0b"] {
            assert_eq!(frame(b"x", Some(name)), "id: 17-4\ndata: x\n\n", "{name:?}");
        }
        assert_eq!(frame(b"x", Some("opened")), "id: 17-4\nevent: opened\ndata: x\n\n");
    }

    #[test]
    fn ids_increase_when_the_clock_goes_back_or_the_counter_is_full() {
        let first = EventId::start_of(7, 1_000);
        let second = first.next(900);
        assert!(first < second && second < second.next(2_000));
        let full = EventId { time_ms: 5, sequence: (7 << 32) | u64::from(u32::MAX) };
        assert!(full < full.next(5));
        assert_eq!(full.next(5).history(), 7);
    }

    #[test]
    fn only_displayed_ids_are_parsed() {
        let id = EventId { time_ms: 1_763_690_177_349, sequence: 5_648_324_730_880_001 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().len() <= 31);
        for bad in
            ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "01-2", "1-02", " 1-2", "1-2 ", "a-b"]
        {
            assert_eq!(bad.parse::<EventId>(), Err(ParseEventIdError), "{bad:?}");
        }
        assert!("99999999999999999999-0".parse::<EventId>().is_err(), "more than 64 bits");
    }

    #[test]
    fn before_separates_two_milliseconds() {
        let cursor = EventId::before(10, 7);
        assert!(cursor < EventId::start_of(7, 10));
        assert!(EventId::start_of(7, 9).next(9) < cursor);
        assert_eq!(cursor.history(), 7);
        assert_eq!(EventId::before(0, 7), EventId::start_of(7, 0));
    }
}
