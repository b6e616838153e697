//! What leaves: an event, its id, and its bytes on the wire, encoded once for all readers.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use memchr::memchr2_iter;

use crate::model::message::Message;

/// The place of an event in the one order over all topics: `<unix ms>-<sequence>`.
///
/// It has the shape of a [Redis stream's
/// id](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids) and is compared as a
/// pair of integers. Ids that a process hands out by itself carry a random number of that process
/// above the sequence's 32nd bit, so that an id names its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Unix time in milliseconds; never goes back within a history.
    pub time_ms: u64,
    /// Orders the events of one millisecond.
    pub sequence: u64,
}

/// Text that is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected <unix ms>-<sequence>, as in 1763690177349-5648324730880001")]
pub struct ParseEventIdError;

/// The random number of a process lies above this bit of the sequence. Redis' own sequences stay
/// below it, so its ids have the history 0.
const HISTORY_SHIFT: u32 = 32;
/// A history has 21 bits: with the 32 of the counter, a sequence stays within the 53 bits that
/// JavaScript's numbers hold exactly.
pub const HISTORY_MAX: u64 = (1 << 21) - 1;
/// Two `u64` and the dash. Those that this program hands out take at most 31.
const ID_LEN_MAX: usize = 41;

impl EventId {
    /// Below every id that is ever handed out.
    pub const ZERO: Self = Self { time_ms: 0, sequence: 0 };
    /// After all others.
    pub const MAX: Self = Self { time_ms: u64::MAX, sequence: u64::MAX };

    /// The first id of the history `history`, which is cut to [`HISTORY_MAX`].
    pub fn start_of(history: u64, time_ms: u64) -> Self {
        Self { time_ms, sequence: (history & HISTORY_MAX) << HISTORY_SHIFT }
    }

    /// Below every id that the history hands out from `time_ms` on, and above those before. It is
    /// an id of that history itself, so that a reader can bring it back.
    pub fn before(time_ms: u64, history: u64) -> Self {
        match time_ms.checked_sub(1) {
            Some(time_ms) => {
                let start = Self::start_of(history, time_ms);
                Self { time_ms, sequence: start.sequence | u64::from(u32::MAX) }
            }
            None => Self::start_of(history, 0),
        }
    }

    /// Which process (or, with 0, which Redis) handed the id out.
    pub fn history(self) -> u64 {
        self.sequence >> HISTORY_SHIFT
    }

    /// The id after `self` when the wall clock says `now_ms`, even if the clock went back.
    pub fn next(self, now_ms: u64) -> Self {
        // The counter goes on over milliseconds, so a busy gateway fills it in some days. It may
        // never run into the bits of the history: it begins anew in the next millisecond.
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

/// One event as every reader gets it.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order over all topics.
    pub id: EventId,
    /// The whole block, from `id:` to the empty line.
    pub frame: Bytes,
    /// When Pub/Sub took the message, Unix milliseconds.
    pub publish_time_ms: Option<u64>,
}

/// What an event costs beside its frame: its own fields, its reference counts and its places in
/// its topic's ring and in the timeline.
const EVENT_OVERHEAD_BYTES: usize = 200;

impl Event {
    /// The memory it is charged for.
    pub fn size(&self) -> usize {
        self.frame.len() + EVENT_OVERHEAD_BYTES
    }
}

/// An event that has no id yet: all the work that can be done outside the critical section in which
/// ids are handed out.
#[derive(Debug)]
pub struct Draft {
    /// [`HEADROOM`] bytes that the id's line is written into, then the rest of the block.
    buffer: BytesMut,
    publish_time_ms: Option<u64>,
}

const ID_FIELD: &[u8] = b"id: ";
const HEADROOM: usize = ID_FIELD.len() + ID_LEN_MAX + 1;

impl Draft {
    /// Encodes a message as a block of an event stream
    /// (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>):
    /// an `event:` line when the message names a type, a `data:` line for each line of its data.
    /// Data that is not UTF-8 cannot be in a stream, and goes out as base64.
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
        // Exactly what it takes, or the buffer would double and the ring hold what nobody counts.
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

    /// Gives it its id. The cost does not depend on the size of the data.
    pub fn seal(mut self, id: EventId) -> Arc<Event> {
        // As `EventId` displays itself, which takes the formatting machinery many times as long.
        let (mut time_ms, mut sequence) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (time_ms, sequence) = (time_ms.format(id.time_ms), sequence.format(id.sequence));
        let line = [ID_FIELD, time_ms.as_bytes(), b"-", sequence.as_bytes(), b"\n"];
        let start = HEADROOM.saturating_sub(line.iter().map(|part| part.len()).sum());
        let mut place = self.buffer.get_mut(start..).unwrap_or_default();
        for part in line {
            place.put_slice(part);
        }
        let mut frame = self.buffer.freeze();
        frame.advance(start);
        Arc::new(Event { id, frame, publish_time_ms: self.publish_time_ms })
    }
}

/// Where each line of `text` ends and how long its end is: CR, LF and CRLF are one end each.
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

/// One `data:` line for each line of `text`: a bare CR that went out as it is would end the line
/// for the reader's parser and let the data forge fields (CWE-93).
fn write_data(buffer: &mut BytesMut, text: &str) {
    let mut from = 0;
    for (end, len) in line_ends(text).chain([(text.len(), 0)]) {
        buffer.extend_from_slice(b"data: ");
        buffer.extend_from_slice(text.get(from..end).unwrap_or_default().as_bytes());
        buffer.extend_from_slice(b"\n");
        from = end + len;
    }
}

/// Whether an application's name may be an event's type. Not those that a reader takes for the
/// gateway's own (`stream-…`) or for `EventSource`'s (`open`, `error`), and nothing that would end
/// the line and forge other fields (CWE-93).
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
    fn whole_blocks() {
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
    fn a_type_that_would_forge_something_is_left_out() {
        for name in ["", "open", "error", "stream-end", "a\nid: 9", "a\rb", "a\0b"] {
            assert_eq!(frame(b"x", Some(name)), "id: 17-4\ndata: x\n\n", "{name:?}");
        }
        assert_eq!(frame(b"x", Some("opened")), "id: 17-4\nevent: opened\ndata: x\n\n");
    }

    #[test]
    fn ids_grow_when_the_clock_goes_back_or_the_counter_is_full() {
        let first = EventId::start_of(7, 1_000);
        let second = first.next(900);
        assert!(first < second && second < second.next(2_000));
        let full = EventId { time_ms: 5, sequence: (7 << 32) | u64::from(u32::MAX) };
        assert!(full < full.next(5));
        assert_eq!(full.next(5).history(), 7);
    }

    #[test]
    fn an_id_is_read_back_and_nothing_else_is_read() {
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
    fn the_millisecond_before_is_below_and_after() {
        let cursor = EventId::before(10, 7);
        assert!(cursor < EventId::start_of(7, 10));
        assert!(EventId::start_of(7, 9).next(9) < cursor);
        assert_eq!(cursor.history(), 7);
        assert_eq!(EventId::before(0, 7), EventId::start_of(7, 0));
    }
}
