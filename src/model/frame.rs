//! Frame of an event in `text/event-stream`
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>).
//!
//! The frame is encoded once, when the event is published, since most readers use this format. It
//! is encoded outside the lock in which ids are assigned: only the line of the id is added inside
//! it.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes};
use memchr::{memchr, memchr2_iter, memmem};

use crate::model::event_id::{EventId, ID_LEN_MAX};

/// Frame without its id: from `event:` or `data:` to the empty line.
#[derive(Debug)]
pub(crate) struct FrameDraft {
    /// [`HEADROOM`] bytes for the line of the id, then the rest of the frame.
    buffer: Vec<u8>,
    data: DataForm,
}

/// Form of the data in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataForm {
    /// Single line, as it was published.
    OneLine,
    /// Lines that ended in LF.
    Lines,
    /// Base64 of data that is not UTF-8.
    Base64,
    /// Lines of which some ended in CR. The frame does not show which ones.
    MixedLineEnds,
}

const ID_FIELD: &[u8] = b"id: ";
const HEADROOM: usize = ID_FIELD.len() + ID_LEN_MAX + 1;
const DATA_FIELD: &[u8] = b"data: ";

impl FrameDraft {
    /// Encodes an `event:` line if `event_type` is allowed, and a `data:` line for each line of
    /// `data`. Data that is not UTF-8 is not allowed in an event stream; it is encoded as base64.
    pub(crate) fn new(event_type: Option<&str>, data: &[u8]) -> Self {
        let event_type = event_type.filter(|name| is_event_type(name));
        let encoded;
        let (text, is_text) = if let Ok(text) = str::from_utf8(data) {
            (text, true)
        } else {
            encoded = STANDARD.encode(data);
            (&*encoded, false)
        };
        let type_len = event_type.map_or(0, |name| name.len() + "event: \n".len());
        // Reserves the exact size: a buffer that doubles would hold bytes that no limit counts.
        let line_ends = line_ends(text).count();
        let text_len = text.len() + "data: \n".len() * (line_ends + 1) + 1;
        let mut buffer = Vec::with_capacity(HEADROOM + type_len + text_len);
        buffer.resize(HEADROOM, 0);
        if let Some(name) = event_type {
            for part in ["event: ", name, "\n"] {
                buffer.extend_from_slice(part.as_bytes());
            }
        }
        write_data(&mut buffer, text, line_ends);
        buffer.extend_from_slice(b"\n");
        let data = match line_ends {
            _ if !is_text => DataForm::Base64,
            0 => DataForm::OneLine,
            _ if memchr(b'\r', text.as_bytes()).is_none() => DataForm::Lines,
            _ => DataForm::MixedLineEnds,
        };
        Self { buffer, data }
    }

    /// Returns the form of the data in the frame.
    pub(crate) fn data(&self) -> DataForm {
        self.data
    }

    /// Adds the line of the id. The cost does not depend on the size of the data.
    pub(crate) fn seal(mut self, id: EventId) -> Bytes {
        // Writes the text of `EventId`'s `Display`, which would take much longer.
        let (mut time_ms, mut sequence) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (time_ms, sequence) = (time_ms.format(id.time_ms), sequence.format(id.sequence));
        let line = [ID_FIELD, time_ms.as_bytes(), b"-", sequence.as_bytes(), b"\n"];
        let start = HEADROOM.saturating_sub(line.iter().map(|part| part.len()).sum());
        let mut headroom = self.buffer.get_mut(start..).unwrap_or_default();
        for part in line {
            headroom.put_slice(part);
        }
        let mut frame = Bytes::from(self.buffer);
        frame.advance(start);
        frame
    }
}

/// Returns the lines of a frame before its first `data:` line. The line of the id is the first one.
pub(crate) fn head_of(frame: &[u8]) -> &[u8] {
    let data = memmem::find(frame, b"\ndata: ").map_or(0, |line_end| line_end + 1);
    frame.get(..data).unwrap_or_default()
}

/// Reads data back from the `data:` lines of a frame. With [`DataForm::MixedLineEnds`] CR and CRLF
/// come back as LF.
pub(crate) fn data_of(frame: &[u8], form: DataForm) -> Cow<'_, [u8]> {
    let mut lines =
        frame.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(DATA_FIELD));
    if form == DataForm::OneLine {
        return Cow::Borrowed(lines.next_back().unwrap_or_default());
    }
    let text = lines.collect::<Vec<_>>().join(&b'\n');
    match form {
        DataForm::Base64 => Cow::Owned(STANDARD.decode(&text).unwrap_or_default()),
        _ => Cow::Owned(text),
    }
}

/// Returns the position and the length of each line end in `text`. CR, LF and CRLF are one each.
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

/// Writes a `data:` line for each line of `text`, which has `ends` line ends: text without one is
/// not searched again. A bare CR that is copied as it is would end the
/// line in the reader's parser, and the data could forge fields (CWE-93).
fn write_data(buffer: &mut Vec<u8>, text: &str, ends: usize) {
    let mut from = 0;
    for (end, len) in line_ends(text).take(ends).chain([(text.len(), 0)]) {
        buffer.extend_from_slice(b"data: ");
        buffer.extend_from_slice(text.get(from..end).unwrap_or_default().as_bytes());
        buffer.extend_from_slice(b"\n");
        from = end + len;
    }
}

/// Returns true if an application may use `name` as an event type. Refuses the gateway's own names
/// (`stream-…`), those of `EventSource` (`open`, `error`), and text that would end the line and
/// forge other fields (CWE-93).
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

    fn frame(data: &[u8], event_type: Option<&str>) -> String {
        let frame = FrameDraft::new(event_type, data).seal(EventId { time_ms: 17, sequence: 4 });
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn frames_are_encoded_whole() {
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
    fn an_event_type_that_would_forge_fields_is_left_out() {
        for name in ["", "open", "error", "stream-end", "a\nid: 9", "a\rb", "a\0b"] {
            assert_eq!(frame(b"x", Some(name)), "id: 17-4\ndata: x\n\n", "{name:?}");
        }
        assert_eq!(frame(b"x", Some("opened")), "id: 17-4\nevent: opened\ndata: x\n\n");
    }
}
