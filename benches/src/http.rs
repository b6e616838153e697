//! Responses of HTTP/1.1, taken apart as they come in: the head, and a body that is of a known
//! length, in chunks, or goes on till the connection closes.

use crate::Result;

/// One response.
#[derive(Debug, Default)]
pub struct Response {
    state: State,
    /// The head as far as it is there.
    head: Vec<u8>,
    /// 0 until the head is there.
    pub status: u16,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    UntilClose,
    Length(u64),
    ChunkSize {
        size: u64,
        /// Behind the digits, where an extension may be.
        digits_over: bool,
    },
    Chunk(u64),
    /// The line end behind a chunk, of so many bytes.
    ChunkEnd(u8),
    /// Behind the last chunk, in a line that has so many bytes so far.
    Trailer(usize),
    Done,
}

impl Response {
    /// Whether the head is there.
    pub fn is_open(&self) -> bool {
        self.state != State::Head
    }

    /// Whether all of it is there.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Ready for the next one on the same connection.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.status = 0;
    }

    /// Takes what came in, and gives out the parts of the body in it.
    ///
    /// # Errors
    /// When it is not HTTP.
    pub fn feed(&mut self, mut input: &[u8], body: &mut impl FnMut(&[u8])) -> Result<()> {
        while !input.is_empty() {
            let used = match self.state {
                State::Head => self.feed_head(input)?,
                State::UntilClose => {
                    body(input);
                    input.len()
                }
                State::Length(left) => {
                    let used = give(input, left, body);
                    let left = left - used as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    used
                }
                State::Chunk(left) => {
                    let used = give(input, left, body);
                    let left = left - used as u64;
                    self.state = if left == 0 { State::ChunkEnd(2) } else { State::Chunk(left) };
                    used
                }
                State::Done => return Err("bytes after the end of a response".into()),
                _ => self.feed_framing(input[0])?,
            };
            input = &input[used..];
        }
        Ok(())
    }

    fn feed_head(&mut self, input: &[u8]) -> Result<usize> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = parsed.parse(&self.head)? else {
            return Ok(input.len());
        };
        self.status = parsed.code.unwrap_or_default();
        self.state = State::UntilClose;
        for header in parsed.headers.iter() {
            let value = str::from_utf8(header.value)?.trim();
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(format!("a body that is {value}").into());
                }
                self.state = State::ChunkSize { size: 0, digits_over: false };
            } else if header.name.eq_ignore_ascii_case("content-length") {
                let length = value.parse()?;
                self.state = if length == 0 { State::Done } else { State::Length(length) };
            }
        }
        if self.status == 204 {
            self.state = State::Done;
        }
        self.head = Vec::new();
        Ok(length - before)
    }

    /// One byte of what is around chunks.
    fn feed_framing(&mut self, byte: u8) -> Result<usize> {
        self.state = match (self.state, byte) {
            (State::ChunkSize { size: 0, .. }, b'\n') => State::Trailer(0),
            (State::ChunkSize { size, .. }, b'\n') => State::Chunk(size),
            (State::ChunkSize { size, .. }, b'\r' | b';')
            | (State::ChunkSize { size, digits_over: true }, _) => {
                State::ChunkSize { size, digits_over: true }
            }
            (State::ChunkSize { size, digits_over: false }, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or("a chunk of no size")?;
                State::ChunkSize { size: size * 16 + u64::from(digit), digits_over: false }
            }
            (State::ChunkEnd(2), b'\r') => State::ChunkEnd(1),
            (State::ChunkEnd(1), b'\n') => State::ChunkSize { size: 0, digits_over: false },
            (State::Trailer(0), b'\n') => State::Done,
            (State::Trailer(_), b'\n') => State::Trailer(0),
            (State::Trailer(length), b'\r') => State::Trailer(length),
            (State::Trailer(length), _) => State::Trailer(length + 1),
            _ => return Err("a chunk that does not end where it should".into()),
        };
        Ok(1)
    }
}

fn give(input: &[u8], left: u64, body: &mut impl FnMut(&[u8])) -> usize {
    let length = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    body(&input[..length]);
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(parts: &[&[u8]]) -> (Response, Vec<u8>) {
        let (mut response, mut body) = (Response::default(), Vec::new());
        for part in parts {
            response.feed(part, &mut |bytes| body.extend_from_slice(bytes)).unwrap();
        }
        (response, body)
    }

    #[test]
    fn the_body_is_the_same_wherever_reads_split_it() {
        let samples: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              5\r\nhello\r\n1;x=y\r\n,\r\n00b\r\n world, bye\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\nhello, world, bye",
            b"HTTP/1.1 200 OK\r\n\r\nhello, world, bye",
        ];
        for (sample, ends) in samples.into_iter().zip([true, true, false]) {
            for at in 0..sample.len() {
                let (response, body) = body_of(&[&sample[..at], &sample[at..]]);
                assert_eq!(String::from_utf8_lossy(&body), "hello, world, bye", "split at {at}");
                assert_eq!((response.status, response.is_done()), (200, ends), "split at {at}");
            }
        }
    }

    #[test]
    fn no_content_ends_with_its_head() {
        let (response, body) = body_of(&[b"HTTP/1.1 204 No Content\r\n\r\n"]);
        assert!(response.is_done() && body.is_empty());
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for rest in [b"x\r\n".as_slice(), b"1\r\nab\r\n"] {
            let (mut response, _) = body_of(&[head]);
            assert!(response.feed(rest, &mut |_| ()).is_err());
        }
    }
}
