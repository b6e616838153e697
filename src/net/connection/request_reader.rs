//! Buffers the bytes of an HTTP/1 connection until a head is complete and checked, so that the
//! decoder of actix gets only heads that it can decode.

use actix_http::{
    ServiceConfigBuilder,
    h1::{Codec, Message, MessageType},
};
use actix_web::http::KeepAlive;
use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio_util::codec::Decoder as _;

use crate::net::connection::request_head::{HeadError, HeadScan};

/// Buffer of received bytes that were not given to actix yet.
#[derive(Debug)]
pub(super) struct RequestReader {
    held: BytesMut,
    /// Number of bytes at the beginning of `held` that can be given to actix.
    ready: usize,
    /// Size of a head that became complete since the last call of
    /// [`RequestReader::take_new_head`].
    new_head: Option<usize>,
    scan: HeadScan,
    /// Decoder that finds the ends of bodies. actix has the same one, so both find the same ends.
    codec: Codec,
    state: State,
}

/// Kind of the bytes that a peer sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next bytes belong to a head.
    Head,
    /// The next bytes belong to a body. They are given to actix at once.
    Body,
    /// The last head or body is refused. actix gets no more bytes, and answers it.
    End,
}

/// Method of the request that replaces a refused head. Its answer is the refusal. It is given to
/// actix so that the refusal comes after the answers to earlier requests.
pub const REFUSED_METHOD: &str = "REFUSED";
/// Request that replaces a refused head.
const REFUSED: &[u8] = b"REFUSED / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

impl RequestReader {
    /// Creates a reader whose first bytes are `ahead`.
    pub(super) fn new(ahead: &[u8]) -> Self {
        let config = ServiceConfigBuilder::new().keep_alive(KeepAlive::Os).build();
        Self {
            held: ahead.into(),
            ready: 0,
            new_head: None,
            scan: HeadScan::default(),
            codec: Codec::new(config),
            state: State::Head,
        }
    }

    /// Appends received bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if self.state != State::End {
            self.held.extend_from_slice(bytes);
        }
    }

    /// Returns true if the next bytes belong to a body.
    pub(super) fn is_in_body(&self) -> bool {
        self.state == State::Body
    }

    /// Returns the number of bytes of an incomplete head.
    pub(super) fn head_bytes(&self) -> usize {
        if self.state == State::Head { self.held.len() - self.ready } else { 0 }
    }

    /// Moves bytes for actix to `buffer`. Returns true if it moved any.
    ///
    /// # Errors
    /// Fails when the next head must not be decoded. Later calls return the request that replaces
    /// it, [`REFUSED_METHOD`].
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> Result<bool, HeadError> {
        while self.ready == 0 && !self.held.is_empty() {
            match self.state {
                State::Head => match self.complete_head() {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(err) => {
                        self.held = REFUSED.into();
                        (self.ready, self.state) = (REFUSED.len(), State::End);
                        return Err(err);
                    }
                },
                State::Body => self.ready = self.body_bytes(),
                State::End => self.held.clear(),
            }
        }
        let part = self.held.split_to(self.ready.min(buffer.remaining()));
        buffer.put_slice(&part);
        self.ready -= part.len();
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
        Ok(!part.is_empty())
    }

    /// Takes the size of the head of which the first bytes were moved. Returns it once.
    pub(super) fn take_new_head(&mut self) -> Option<usize> {
        self.new_head.take()
    }

    /// Returns true if the first bytes of a head were moved and its size was not taken yet.
    pub(super) fn has_new_head(&self) -> bool {
        self.new_head.is_some()
    }

    /// Completes the next head, if all of it is received. Returns false if it is incomplete.
    fn complete_head(&mut self) -> Result<bool, HeadError> {
        self.scan.skip_empty_lines(&mut self.held)?;
        let Some(end) = self.scan.find_end(&self.held)? else { return Ok(false) };
        self.scan = HeadScan::default();
        (self.ready, self.new_head) = (end, Some(end));
        let mut head = BytesMut::from(self.held.get(..end).unwrap_or_default());
        self.state = match self.codec.decode(&mut head) {
            Ok(Some(Message::Item(_))) if self.codec.message_type() == MessageType::None => {
                State::Head
            }
            Ok(Some(Message::Item(_))) => State::Body,
            // actix finds the same error, and answers it.
            _ => State::End,
        };
        Ok(true)
    }

    /// Returns the number of held bytes that belong to the body.
    fn body_bytes(&mut self) -> usize {
        let mut left = self.held.clone();
        loop {
            match self.codec.decode(&mut left) {
                Ok(Some(Message::Chunk(Some(_)))) => {}
                Ok(Some(Message::Chunk(None))) => {
                    self.state = State::Head;
                    return self.held.len() - left.len();
                }
                Ok(None) => return self.held.len(),
                Ok(Some(Message::Item(_))) | Err(_) => {
                    self.state = State::End;
                    return self.held.len();
                }
            }
        }
    }
}
