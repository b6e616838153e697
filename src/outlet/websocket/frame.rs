//! Frames ([RFC 6455, section 5](https://www.rfc-editor.org/rfc/rfc6455#section-5)): those that the
//! gateway sends, and the decoder of those that a client sends.

use actix_http::ws::{OpCode, Parser, ProtocolError};
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{hub::BATCH_MAX_BYTES, outlet::client::refusal::CloseCode};

/// Limit of the bytes of a client's message.
pub(super) const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// Limit of the frames of a client's message.
const FRAGMENTS_MAX: usize = 1_024;
/// Limit of the payload of a control frame.
const CONTROL_MAX_BYTES: usize = 125;
/// Longest frame header of a client: two bytes, a length of eight, and the mask.
const HEADER_MAX_BYTES: usize = 14;
/// Payload of a frame that has [`BATCH_MAX_BYTES`] with its header of four bytes.
const FRAGMENT_BYTES: usize = BATCH_MAX_BYTES - 4;

/// Returns a text message. One that needs more than [`BATCH_MAX_BYTES`] is fragmented into frames
/// of that size, so that each slice of a large event is one frame, and control frames can go in
/// between.
pub(super) fn text_message(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 4 * text.len().div_ceil(FRAGMENT_BYTES));
    let count = text.len().div_ceil(FRAGMENT_BYTES).max(1);
    for at in 0..count {
        let from = at * FRAGMENT_BYTES;
        let part = text.get(from..text.len().min(from + FRAGMENT_BYTES)).unwrap_or_default();
        let opcode = if at == 0 { OpCode::Text } else { OpCode::Continue };
        Parser::write_message(&mut out, part, opcode, at + 1 == count, false);
    }
    out.freeze()
}

/// Appends a ping without a payload.
pub(super) fn write_ping(out: &mut BytesMut) {
    Parser::write_message(out, [], OpCode::Ping, true, false);
}

/// Appends the answer to a ping.
pub(super) fn write_pong(out: &mut BytesMut, payload: &[u8]) {
    Parser::write_message(out, payload, OpCode::Pong, true, false);
}

/// Appends a close frame with a code and a reason, or without both.
pub(super) fn write_close(out: &mut BytesMut, code: Option<u16>, reason: &str) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    if let Some(code) = code {
        payload.put_u16(code);
        payload.extend_from_slice(reason.as_bytes());
    }
    Parser::write_message(out, payload, OpCode::Close, true, false);
}

/// Inserts `members` of JSON behind the opening brace of each text message in `frames`, which are
/// whole frames of [`text_message`].
pub(super) fn insert_members(frames: &[u8], members: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(frames.len() + members.len() + 16);
    let mut rest = frames;
    while let Some((frame, payload, behind)) = split_frame(rest) {
        rest = behind;
        let first = frame.first().copied().unwrap_or_default();
        match payload.split_first() {
            Some((brace, object)) if OpCode::from(first & 0x0f) == OpCode::Text => {
                let text = [&[*brace], members, object].concat();
                Parser::write_message(&mut out, text, OpCode::Text, first & 0x80 != 0, false);
            }
            _ => out.extend_from_slice(frame),
        }
    }
    out.freeze()
}

/// Returns the first frame of the gateway's own, its payload, and what is behind it.
fn split_frame(frames: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, length) = header_and_length(frames)?;
    let (frame, behind) = frames.split_at_checked(header.checked_add(length)?)?;
    Some((frame, frame.get(header..)?, behind))
}

/// Returns the length of a header, without a mask, and the announced length of the payload. `None`
/// when the header is incomplete.
fn header_and_length(frame: &[u8]) -> Option<(usize, usize)> {
    let (length, rest) = (frame.get(1)? & 0x7f, frame.get(2..)?);
    Some(match length {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    })
}

/// Returns true if a length uses as few bytes as possible, and its highest bit is 0 (RFC 6455,
/// section 5.2). The parser does not check that.
fn is_minimal(header: usize, length: usize) -> bool {
    match header {
        2 => true,
        4 => CONTROL_MAX_BYTES < length,
        _ => usize::from(u16::MAX) < length && i64::try_from(length).is_ok(),
    }
}

/// Message or control frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Whole text message.
    Text(String),
    Ping(BytesMut),
    Pong,
    /// Close frame with its code.
    Close(Option<u16>),
}

/// Decoder of a client's frames. It keeps no buffer while it waits between messages.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: BytesMut,
    /// Received part of a message.
    message: Vec<u8>,
    /// Bytes of `message` that are known to be UTF-8.
    checked: usize,
    /// Number of frames of the incomplete message.
    fragments: usize,
}

impl Input {
    /// Adds received bytes.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the number of received bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.message.len()
    }

    /// Returns true if more bytes may be added.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < MESSAGE_MAX_BYTES + HEADER_MAX_BYTES
    }

    /// Returns true if no part of a frame or of a message was received.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.fragments == 0
    }

    /// Returns the next message or control frame, or `None` if none is complete.
    ///
    /// # Errors
    /// Returns the code with which the connection must be closed.
    pub(super) fn next(&mut self) -> Result<Option<Received>, CloseCode> {
        loop {
            self.check_header()?;
            let parsed = Parser::parse(&mut self.bytes, true, MESSAGE_MAX_BYTES);
            let Some((is_last, opcode, payload)) = parsed.map_err(|err| code_of(&err))? else {
                return Ok(None);
            };
            if self.bytes.is_empty() {
                self.bytes = BytesMut::new();
            }
            let payload = payload.unwrap_or_default();
            let is_first = self.fragments == 0;
            match opcode {
                OpCode::Ping => return Ok(Some(Received::Ping(payload))),
                OpCode::Pong => return Ok(Some(Received::Pong)),
                OpCode::Close => return close_code(&payload).map(Received::Close).map(Some),
                OpCode::Binary if is_first => return Err(CloseCode::Unsupported),
                OpCode::Text if is_first => {}
                OpCode::Continue if !is_first => {}
                _ => return Err(CloseCode::Protocol),
            }
            if let Some(text) = self.add(&payload, is_last)? {
                return Ok(Some(Received::Text(text)));
            }
        }
    }

    /// Adds a frame of a text message. Returns the message after its last frame.
    fn add(&mut self, payload: &[u8], is_last: bool) -> Result<Option<String>, CloseCode> {
        self.fragments += 1;
        if FRAGMENTS_MAX < self.fragments {
            return Err(CloseCode::TooLarge);
        }
        self.message.extend_from_slice(payload);
        // A character may be cut by the end of a frame, but not by that of the message.
        let unchecked = self.message.get(self.checked..).unwrap_or_default();
        match str::from_utf8(unchecked) {
            Ok(_) => self.checked = self.message.len(),
            Err(err) if err.error_len().is_none() && !is_last => self.checked += err.valid_up_to(),
            Err(_) => return Err(CloseCode::NotUtf8),
        }
        if !is_last {
            return Ok(None);
        }
        (self.fragments, self.checked) = (0, 0);
        let message = std::mem::take(&mut self.message);
        String::from_utf8(message).map(Some).map_err(|_| CloseCode::NotUtf8)
    }

    /// Checks the header of the next frame before its payload is received: the parser waits for all
    /// that a frame announces.
    fn check_header(&self) -> Result<(), CloseCode> {
        let [first, second, ..] = *self.bytes else { return Ok(()) };
        // No extension defines the reserved bits.
        let is_known = matches!(first & 0x7f, 0..=2 | 8..=10);
        if !is_known || second & 0x80 == 0 {
            return Err(CloseCode::Protocol);
        }
        let length = match header_and_length(&self.bytes) {
            Some((header, length)) if is_minimal(header, length) => length,
            Some(_) => return Err(CloseCode::Protocol),
            // The length is incomplete, or is more than the processor can count.
            None if self.bytes.len() < HEADER_MAX_BYTES => return Ok(()),
            None => return Err(CloseCode::TooLarge),
        };
        let (is_last, is_control) = (first & 0x80 != 0, first & 0x08 != 0);
        if is_control {
            let is_valid = is_last && length <= CONTROL_MAX_BYTES;
            return if is_valid { Ok(()) } else { Err(CloseCode::Protocol) };
        }
        let is_small = length <= MESSAGE_MAX_BYTES.saturating_sub(self.message.len());
        if is_small { Ok(()) } else { Err(CloseCode::TooLarge) }
    }
}

/// Returns the code in a close frame, if it has one.
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseCode> {
    // The parser reports a reason that is not UTF-8 like a code that is not allowed.
    let code = payload.get(..2).unwrap_or(payload);
    let parsed = Parser::try_parse_close_payload(code).map_err(|_| CloseCode::Protocol)?;
    match str::from_utf8(payload.get(2..).unwrap_or_default()) {
        Ok(_) => Ok(parsed.map(|close| close.code.into())),
        Err(_) => Err(CloseCode::NotUtf8),
    }
}

/// Returns the code for an error of the parser.
fn code_of(err: &ProtocolError) -> CloseCode {
    match err {
        ProtocolError::Overflow => CloseCode::TooLarge,
        _ => CloseCode::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{any, prop_assert_eq, proptest},
    };

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let (mut frame, mask) = (vec![first], [1, 2, 3, 4]);
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                frame.push(0xfe);
                frame.put_u16(u16::try_from(long).unwrap());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Returns what a client sent until the first error, byte by byte.
    fn received(frames: &[Vec<u8>]) -> (Vec<Received>, Option<CloseCode>) {
        let (mut input, mut all) = (Input::default(), Vec::new());
        for byte in frames.concat() {
            input.receive(&[byte]);
            loop {
                match input.next() {
                    Ok(Some(one)) => all.push(one),
                    Ok(None) => break,
                    Err(code) => return (all, Some(code)),
                }
            }
        }
        (all, None)
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let sent = [masked(1, "é".as_bytes()), masked(0x89, b"hi"), masked(0x80, b"a")];
        // The first frame is not the last one, and cuts a character.
        let cut =
            [masked(1, &[0xc3]), masked(0x89, b"hi"), masked(0x8a, b""), masked(0x80, &[0xa9])];
        let ping = || Received::Ping(b"hi"[..].into());
        assert_eq!(received(&sent), (vec![ping(), Received::Text("éa".to_owned())], None));
        let text = Received::Text("é".to_owned());
        assert_eq!(received(&cut), (vec![ping(), Received::Pong, text], None));
    }

    #[test]
    fn frames_that_break_the_protocol_are_refused() {
        let close =
            |code: u16, reason: &[u8]| masked(0x88, &[&code.to_be_bytes(), reason].concat());
        for (frames, code) in [
            (vec![masked(0x81, &[0xff])], CloseCode::NotUtf8),
            (vec![masked(0x81, &[0xc3])], CloseCode::NotUtf8),
            (vec![masked(1, &[0xf4, 0x90])], CloseCode::NotUtf8),
            (vec![masked(0xc1, b"a")], CloseCode::Protocol),
            (vec![masked(0x83, b"a")], CloseCode::Protocol),
            (vec![masked(0x8b, b"a")], CloseCode::Protocol),
            (vec![vec![0x81, 1, b'a']], CloseCode::Protocol),
            (vec![masked(0x80, b"a")], CloseCode::Protocol),
            (vec![masked(1, b"a"), masked(0x81, b"a")], CloseCode::Protocol),
            (vec![masked(9, b"a")], CloseCode::Protocol),
            (vec![masked(0x89, &[b'a'; 126])], CloseCode::Protocol),
            (vec![masked(0x82, b"a")], CloseCode::Unsupported),
            (vec![masked(0x88, b"a")], CloseCode::Protocol),
            (vec![close(999, b"")], CloseCode::Protocol),
            (vec![close(1005, b"")], CloseCode::Protocol),
            (vec![close(2999, b"")], CloseCode::Protocol),
            (vec![close(1000, &[0xff])], CloseCode::NotUtf8),
            (vec![vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1]], CloseCode::TooLarge),
            (vec![vec![0x81, 0xff, 0x7f, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]], CloseCode::TooLarge),
            (vec![vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 1]], CloseCode::Protocol),
            (vec![vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]], CloseCode::Protocol),
            (vec![vec![0x81, 0xfe, 0, 125]], CloseCode::Protocol),
            (vec![vec![0x89, 0xfe, 0, 5]], CloseCode::Protocol),
            (vec![masked(1, &[b'a'; 60_000]), masked(0, &[b'a'; 6_000])], CloseCode::TooLarge),
            ([vec![masked(1, b"")], vec![masked(0, b""); 1_024]].concat(), CloseCode::TooLarge),
        ] {
            let (before, met) = received(&frames);
            assert_eq!((met, before.len()), (Some(code), 0), "{:?}", frames.first());
        }
        assert_eq!(received(&[close(4_000, b"x")]).0, [Received::Close(Some(4_000))]);
        assert_eq!(received(&[masked(0x88, b"")]).0, [Received::Close(None)]);
        assert_eq!(received(&[masked(0x89, &[b'a'; 125])]).0.len(), 1);
    }

    proptest! {
        #[test]
        fn results_do_not_depend_on_how_bytes_arrive(
            parts in vec((0x80_u8..0x8b, vec(any::<u8>(), 0..20)), 0..6),
            garbage in vec(any::<u8>(), 0..20),
        ) {
            let mut frames: Vec<_> =
                parts.iter().map(|(first, payload)| masked(*first, payload)).collect();
            frames.push(garbage);
            let (mut input, mut all) = (Input::default(), Vec::new());
            input.receive(&frames.concat());
            let failed = loop {
                match input.next() {
                    Ok(Some(one)) => all.push(one),
                    Ok(None) => break None,
                    Err(code) => break Some(code),
                }
            };
            prop_assert_eq!((all, failed), received(&frames));
        }
    }

    #[test]
    fn each_slice_of_a_large_message_is_a_frame() {
        for len in [0, 1, 125, 126, FRAGMENT_BYTES] {
            let message = text_message(&vec![b'a'; len]);
            assert!(message.len() <= BATCH_MAX_BYTES);
            assert_eq!(split_frame(&message).unwrap().2, b"", "{len}");
        }
        let text: Vec<u8> = (0..40_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        let message = text_message(&text);
        let (mut joined, mut firsts) = (Vec::new(), Vec::new());
        for slice in message.chunks(BATCH_MAX_BYTES) {
            let (frame, payload, behind) = split_frame(slice).unwrap();
            assert!(behind.is_empty(), "a slice is one frame");
            joined.extend_from_slice(payload);
            firsts.push(frame[0]);
        }
        assert_eq!((joined, firsts), (text, vec![0x01, 0x00, 0x80]));
    }

    #[test]
    fn members_are_inserted_into_each_message_and_nowhere_else() {
        let mut ping = BytesMut::new();
        write_ping(&mut ping);
        let frames = [&text_message(b"{\"a\":1}"), &ping[..], &text_message(b"{\"b\":2}")].concat();
        let expected = [
            &text_message(b"{\"sub\":\"x\",\"a\":1}"),
            &ping[..],
            &text_message(b"{\"sub\":\"x\",\"b\":2}"),
        ];
        assert_eq!(insert_members(&frames, b"\"sub\":\"x\","), expected.concat());
        let large = text_message(&[b"{", &vec![b'x'; 20_000][..]].concat());
        let (first, second) = large.split_at(BATCH_MAX_BYTES);
        assert_eq!(insert_members(second, b"y"), second);
        let inserted = insert_members(first, b"y");
        let (frame, payload, behind) = split_frame(&inserted).unwrap();
        assert_eq!((frame[0], payload.len(), behind.len()), (1, FRAGMENT_BYTES + 1, 0));
        assert!(payload.starts_with(b"{yxx"));
    }
}
