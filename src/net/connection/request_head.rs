//! Judges the head of an HTTP/1 request before a decoder sees it. actix' decoder panics at a field
//! name of 64 KiB or more.

use actix_web::http::StatusCode;
use bytes::{Buf as _, BytesMut};

/// Search for the end of a head in what was read, which may come in parts.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Bytes already scanned for the end of a line.
    scanned: usize,
    /// Where the line begins that is coming in.
    line: usize,
    /// Lines that are in.
    lines: usize,
    /// Empty lines that were skipped before the head.
    empty_lines: usize,
    has_bare_lf: bool,
}

/// Reason why a head is refused. The connection ends with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// More than [`HEAD_MAX_BYTES`].
    Size,
    /// A target longer than [`TARGET_MAX_BYTES`].
    Target,
    /// A field name longer than [`NAME_MAX_BYTES`].
    Name,
    /// More than [`FIELDS_MAX`] fields.
    Fields,
    /// More than [`EMPTY_LINES_MAX`] empty lines before it, or a CR without an LF.
    EmptyLines,
}

/// Bytes of a whole head: what actix' decoder takes.
pub const HEAD_MAX_BYTES: usize = 128 * 1024;
/// Bytes of a request line: the crate `http` takes no longer URI.
const TARGET_MAX_BYTES: usize = 65_534;
/// Bytes of one field's name. The longest that is read is that of an attribute of Pub/Sub (256
/// bytes and a prefix).
const NAME_MAX_BYTES: usize = 1_024;
/// Fields of a head: what actix' decoder takes.
const FIELDS_MAX: usize = 96;
/// Empty lines before a head, which a server should skip ([RFC 9112, section
/// 2.2](https://www.rfc-editor.org/rfc/rfc9112#section-2.2)). Old clients send one after a body.
const EMPTY_LINES_MAX: usize = 8;

impl HeadScan {
    /// Removes empty lines before a head. Returns whether there was one.
    ///
    /// # Errors
    /// When there are too many, or a CR stands alone.
    pub fn skip_empty_lines(&mut self, read: &mut BytesMut) -> Result<bool, HeadFault> {
        let before = self.empty_lines;
        loop {
            let bytes = match **read {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                [b'\r', _, ..] => return Err(HeadFault::EmptyLines),
                _ => return Ok(before < self.empty_lines),
            };
            read.advance(bytes);
            self.empty_lines += 1;
            (self.scanned, self.line) = (0, 0);
            if EMPTY_LINES_MAX < self.empty_lines {
                return Err(HeadFault::EmptyLines);
            }
        }
    }

    /// Finds the end of the head at the beginning of `read`, which has grown since the last call.
    /// None if it is not there yet.
    ///
    /// # Errors
    /// When the head must not reach a decoder.
    pub fn find_end(&mut self, read: &[u8]) -> Result<Option<usize>, HeadFault> {
        for at in memchr::memchr_iter(b'\n', read.get(self.scanned..).unwrap_or_default()) {
            let end = self.scanned + at + 1;
            let line = read.get(self.line..end).unwrap_or_default();
            self.line = end;
            self.has_bare_lf |= !line.ends_with(b"\r\n");
            match line {
                b"\r\n" | b"\n" if end <= HEAD_MAX_BYTES => return Ok(Some(end)),
                b"\r\n" | b"\n" => return Err(HeadFault::Size),
                line => self.check_line(line)?,
            }
        }
        self.scanned = read.len();
        if HEAD_MAX_BYTES < read.len() { Err(HeadFault::Size) } else { Ok(None) }
    }

    /// Whether a line of it ended without a CR. Seldom, and allowed.
    pub fn has_bare_lf(&self) -> bool {
        self.has_bare_lf
    }

    fn check_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let is_first = self.lines == 0;
        self.lines += 1;
        if is_first {
            return if TARGET_MAX_BYTES < line.len() { Err(HeadFault::Target) } else { Ok(()) };
        }
        if FIELDS_MAX < self.lines - 1 {
            return Err(HeadFault::Fields);
        }
        if line.len() <= NAME_MAX_BYTES {
            return Ok(());
        }
        let name_bytes = memchr::memchr(b':', line).unwrap_or(line.len());
        if NAME_MAX_BYTES < name_bytes { Err(HeadFault::Name) } else { Ok(()) }
    }
}

impl HeadFault {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Size | Self::Name | Self::Fields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Target => StatusCode::URI_TOO_LONG,
            Self::EmptyLines => StatusCode::BAD_REQUEST,
        }
    }

    /// What was wrong, and what may be.
    pub fn detail(self) -> String {
        match self {
            Self::Size => format!("the head may have {HEAD_MAX_BYTES} bytes, and has more"),
            Self::Target => {
                format!("the request line may have {TARGET_MAX_BYTES} bytes, and has more")
            }
            Self::Name => {
                format!("the name of a field may have {NAME_MAX_BYTES} bytes, and one has more")
            }
            Self::Fields => format!("the head may have {FIELDS_MAX} fields, and has more"),
            Self::EmptyLines => format!(
                "before a request may be {EMPTY_LINES_MAX} empty lines, which end with CR and LF"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it comes in: in parts of so many bytes.
    fn scan(bytes: &[u8], part: usize) -> Result<Option<usize>, HeadFault> {
        let (mut scan, mut read) = (HeadScan::default(), BytesMut::new());
        for part in bytes.chunks(part) {
            read.extend_from_slice(part);
            scan.skip_empty_lines(&mut read)?;
            if let Some(end) = scan.find_end(&read)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for part in [1, 2, 3, 1_000] {
            assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", part), Ok(Some(27)));
            assert_eq!(scan(b"\r\n\nGET / HTTP/1.1\nHost: a\n\n", part), Ok(Some(24)));
            assert_eq!(scan(b"GET / HTTP/1.1\nHost: a\n\r\n", part), Ok(Some(25)));
            assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r", part), Ok(None));
            assert_eq!(scan(b"\r\n\r", part), Ok(None));
        }
    }

    #[test]
    fn a_head_that_a_decoder_cannot_take_is_refused() {
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        let named = |bytes: usize| format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", "a".repeat(bytes));
        let without_colon = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", "a".repeat(2_000));
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(bytes));
        let value = |bytes: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(bytes));
        let before = |lines: usize| format!("{}{}", "\r\n".repeat(lines), value(1));
        for part in [1_000, 1_000_000] {
            let refused = |text: String| scan(text.as_bytes(), part).err();
            assert_eq!(refused(fields(FIELDS_MAX)), None);
            assert_eq!(refused(fields(FIELDS_MAX + 1)), Some(HeadFault::Fields));
            assert_eq!(refused(named(NAME_MAX_BYTES)), None);
            assert_eq!(refused(named(NAME_MAX_BYTES + 1)), Some(HeadFault::Name));
            assert_eq!(refused(without_colon.clone()), Some(HeadFault::Name));
            assert_eq!(refused(target(60_000)), None);
            assert_eq!(refused(target(66_000)), Some(HeadFault::Target));
            assert_eq!(refused(value(100_000)), None);
            assert_eq!(refused(value(HEAD_MAX_BYTES)), Some(HeadFault::Size));
            assert_eq!(refused(before(EMPTY_LINES_MAX)), None);
            assert_eq!(refused(before(EMPTY_LINES_MAX + 1)), Some(HeadFault::EmptyLines));
            assert_eq!(refused("\r\r".to_owned()), Some(HeadFault::EmptyLines));
        }
    }
}
