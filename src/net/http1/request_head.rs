//! Checks the size of an HTTP/1 request head before it is decoded. The decoder of actix panics at a
//! field name of 64 KiB or more.

use actix_web::http::StatusCode;
use bytes::{Buf as _, BytesMut};

/// Incremental search for the end of a head, which can arrive in several parts.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes already scanned for the end of a line.
    scanned: usize,
    /// Offset of the incomplete line.
    line: usize,
    /// Number of complete lines.
    lines: usize,
    /// Number of empty lines skipped before the head.
    empty_lines: usize,
}

/// Error for a head that is refused. The connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    /// The head is longer than [`HEAD_MAX_BYTES`].
    #[error("the request head is longer than {HEAD_MAX_BYTES} bytes")]
    Size,
    /// The request line is longer than `TARGET_MAX_BYTES`.
    #[error("the request line is longer than {TARGET_MAX_BYTES} bytes")]
    Target,
    /// The name of a header is longer than `NAME_MAX_BYTES`.
    #[error("the name of a header is longer than {NAME_MAX_BYTES} bytes")]
    Name,
    /// The head has more than `FIELDS_MAX` headers.
    #[error("the request head has more than {FIELDS_MAX} headers")]
    Fields,
    /// More than `EMPTY_LINES_MAX` empty lines precede the head, or a CR without an LF does.
    #[error(
        "before a request at most {EMPTY_LINES_MAX} empty lines are allowed, and no CR without LF"
    )]
    EmptyLines,
    /// A line ends in LF without CR. RFC 9112, section 2.2, allows a server to accept that. It is
    /// refused, because a proxy in front that reads the line differently could be made to see other
    /// requests than the gateway.
    #[error("a line of the request head ends in LF alone; it must end in CR LF")]
    BareLf,
    /// The decoder rejects the head.
    #[error("the request head is malformed (RFC 9112): its request line, or one of its headers")]
    Malformed,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version of HTTP is not supported; it must be 1.0, 1.1 or 2")]
    Version,
    /// `Expect` has a value other than `100-continue`.
    #[error("the request expects what is not supported; Expect can only be 100-continue")]
    Expectation,
}

/// Limit of the bytes of a head, which is that of the decoder of actix.
pub(super) const HEAD_MAX_BYTES: usize = 128 * 1024;
/// Limit of the bytes of a request line, which is that of a URI in the crate `http`.
const TARGET_MAX_BYTES: usize = 65_534;
/// Limit of the bytes of a header name. The longest useful one is that of a Pub/Sub attribute (a
/// prefix and 256 bytes).
const NAME_MAX_BYTES: usize = 1_024;
/// Limit of the headers of a head, which is that of the decoder of actix.
const FIELDS_MAX: usize = 96;
/// Limit of the empty lines before a head, which a server should skip ([RFC 9112, section
/// 2.2](https://www.rfc-editor.org/rfc/rfc9112#section-2.2)). Old clients send one after a body.
const EMPTY_LINES_MAX: usize = 8;

impl HeadScan {
    /// Removes empty lines before a head. Returns true if it removed one.
    ///
    /// # Errors
    /// Fails when the peer sent too many, a CR without an LF, or an LF without a CR.
    pub(super) fn skip_empty_lines(&mut self, read: &mut BytesMut) -> Result<bool, HeadError> {
        let before = self.empty_lines;
        loop {
            match **read {
                [b'\r', b'\n', ..] => {}
                [b'\n', ..] => return Err(HeadError::BareLf),
                [b'\r', _, ..] => return Err(HeadError::EmptyLines),
                _ => return Ok(before < self.empty_lines),
            }
            read.advance(2);
            self.empty_lines += 1;
            (self.scanned, self.line) = (0, 0);
            if EMPTY_LINES_MAX < self.empty_lines {
                return Err(HeadError::EmptyLines);
            }
        }
    }

    /// Finds the end of the head at the beginning of `read`, which contains the bytes of the last
    /// call and more. Returns `None` when the head is incomplete.
    ///
    /// # Errors
    /// Fails when the head must not be decoded.
    pub(super) fn find_end(&mut self, read: &[u8]) -> Result<Option<usize>, HeadError> {
        for at in memchr::memchr_iter(b'\n', read.get(self.scanned..).unwrap_or_default()) {
            let end = self.scanned + at + 1;
            let line = read.get(self.line..end).unwrap_or_default();
            self.line = end;
            match line {
                b"\r\n" if end <= HEAD_MAX_BYTES => return Ok(Some(end)),
                b"\r\n" => return Err(HeadError::Size),
                line if !line.ends_with(b"\r\n") => return Err(HeadError::BareLf),
                line => self.check_line(line)?,
            }
        }
        self.scanned = read.len();
        if HEAD_MAX_BYTES < read.len() { Err(HeadError::Size) } else { Ok(None) }
    }

    /// Checks the request line or a header line.
    fn check_line(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let is_first = self.lines == 0;
        self.lines += 1;
        if is_first {
            return if TARGET_MAX_BYTES < line.len() { Err(HeadError::Target) } else { Ok(()) };
        }
        if FIELDS_MAX < self.lines - 1 {
            return Err(HeadError::Fields);
        }
        if line.len() <= NAME_MAX_BYTES {
            return Ok(());
        }
        let name_bytes = memchr::memchr(b':', line).unwrap_or(line.len());
        if NAME_MAX_BYTES < name_bytes { Err(HeadError::Name) } else { Ok(()) }
    }
}

impl HeadError {
    /// Returns the status of the answer.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Size | Self::Name | Self::Fields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Target => StatusCode::URI_TOO_LONG,
            Self::EmptyLines | Self::BareLf | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
        }
    }

    /// Returns true if the head is refused for its size, which is a limit of the gateway.
    pub(super) fn is_over_limit(self) -> bool {
        use HeadError::{EmptyLines, Fields, Name, Size, Target};
        matches!(self, Size | Target | Name | Fields | EmptyLines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans bytes that arrive in parts of `part` bytes each.
    fn scan(bytes: &[u8], part: usize) -> Result<Option<usize>, HeadError> {
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
    fn head_ends_at_an_empty_line() {
        for part in [1, 2, 3, 1_000] {
            assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", part), Ok(Some(27)));
            assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", part), Ok(Some(27)));
            assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r", part), Ok(None));
            assert_eq!(scan(b"\r\n\r", part), Ok(None));
            for bare in ["\nGET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n", "GET /\n"] {
                assert_eq!(scan(bare.as_bytes(), part), Err(HeadError::BareLf), "{bare:?}");
            }
        }
    }

    #[test]
    fn head_over_a_limit_is_refused() {
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        let named = |bytes: usize| format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", "a".repeat(bytes));
        let without_colon = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", "a".repeat(2_000));
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(bytes));
        let value = |bytes: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(bytes));
        let before = |lines: usize| format!("{}{}", "\r\n".repeat(lines), value(1));
        for part in [1_000, 1_000_000] {
            let refused = |text: String| scan(text.as_bytes(), part).err();
            assert_eq!(refused(fields(FIELDS_MAX)), None);
            assert_eq!(refused(fields(FIELDS_MAX + 1)), Some(HeadError::Fields));
            assert_eq!(refused(named(NAME_MAX_BYTES)), None);
            assert_eq!(refused(named(NAME_MAX_BYTES + 1)), Some(HeadError::Name));
            assert_eq!(refused(without_colon.clone()), Some(HeadError::Name));
            assert_eq!(refused(target(60_000)), None);
            assert_eq!(refused(target(66_000)), Some(HeadError::Target));
            assert_eq!(refused(value(100_000)), None);
            assert_eq!(refused(value(HEAD_MAX_BYTES)), Some(HeadError::Size));
            assert_eq!(refused(before(EMPTY_LINES_MAX)), None);
            assert_eq!(refused(before(EMPTY_LINES_MAX + 1)), Some(HeadError::EmptyLines));
            assert_eq!(refused("\r\r".to_owned()), Some(HeadError::EmptyLines));
        }
    }
}
