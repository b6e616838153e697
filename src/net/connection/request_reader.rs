//! Follows what a peer sends over HTTP/1, so that actix' decoder is given whole heads only, and
//! none that it must not see.

use actix_http::{
    ServiceConfigBuilder,
    h1::{Codec, Message, MessageType},
};
use actix_web::http::KeepAlive;
use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio_util::codec::Decoder as _;

use crate::net::connection::request_head::{HeadFault, HeadScan};

/// What was read of a connection and not given to actix yet.
#[derive(Debug)]
pub(super) struct RequestReader {
    held: BytesMut,
    /// Bytes at the beginning of `held` that actix may have.
    ready: usize,
    /// Size of a head that is ready since the last call of [`RequestReader::take_new_head`].
    new_head: Option<usize>,
    scan: HeadScan,
    /// Says where bodies end. The same decoder as that of actix, so both find the same end.
    codec: Codec,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A head is coming in.
    HeadClaim,
    /// A body is coming in, which is passed on as it comes.
    Body,
    /// Nothing more is passed on: actix refuses what it was given last.
    End,
}

/// The method of a request that actix is given in place of a head that it must not see. The answer
/// to it is the refusal, which so comes after the answers to the requests before.
pub const REFUSED_METHOD: &str = "REFUSED";
const REFUSED: &[u8] = b"REFUSED / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

impl RequestReader {
    /// Nothing was read but `ahead`.
    pub(super) fn new(ahead: &[u8]) -> Self {
        let config = ServiceConfigBuilder::new().keep_alive(KeepAlive::Os).build();
        Self {
            held: ahead.into(),
            ready: 0,
            new_head: None,
            scan: HeadScan::default(),
            codec: Codec::new(config),
            state: State::HeadClaim,
        }
    }

    /// More was read.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if self.state != State::End {
            self.held.extend_from_slice(bytes);
        }
    }

    /// Whether a body is coming in.
    pub(super) fn is_in_body(&self) -> bool {
        self.state == State::Body
    }

    /// Bytes of a head that is coming in.
    pub(super) fn head_bytes(&self) -> usize {
        if self.state == State::HeadClaim { self.held.len() - self.ready } else { 0 }
    }

    /// Gives actix what it may have. Returns whether there was something.
    ///
    /// # Errors
    /// When the next head must not reach the decoder. The refusal is to be had from now on.
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> Result<bool, HeadFault> {
        while self.ready == 0 && !self.held.is_empty() {
            match self.state {
                State::HeadClaim => match self.next_head() {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(fault) => {
                        self.held = REFUSED.into();
                        (self.ready, self.state) = (REFUSED.len(), State::End);
                        return Err(fault);
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
            // Nothing is kept for a connection on which nothing is going on.
            self.held = BytesMut::new();
        }
        Ok(!part.is_empty())
    }

    /// Size of the head that began to be given, once.
    pub(super) fn take_new_head(&mut self) -> Option<usize> {
        self.new_head.take()
    }

    /// Whether a head began to be given.
    pub(super) fn has_new_head(&self) -> bool {
        self.new_head.is_some()
    }

    /// Whether the next head is there and can be given.
    fn next_head(&mut self) -> Result<bool, HeadFault> {
        self.scan.skip_empty_lines(&mut self.held)?;
        let Some(end) = self.scan.find_end(&self.held)? else { return Ok(false) };
        self.scan = HeadScan::default();
        (self.ready, self.new_head) = (end, Some(end));
        let mut head = BytesMut::from(self.held.get(..end).unwrap_or_default());
        self.state = match self.codec.decode(&mut head) {
            Ok(Some(Message::Item(_))) if self.codec.message_type() == MessageType::None => {
                State::HeadClaim
            }
            Ok(Some(Message::Item(_))) => State::Body,
            // actix finds the same fault, and answers.
            _ => State::End,
        };
        Ok(true)
    }

    /// How much of what is held belongs to the body.
    fn body_bytes(&mut self) -> usize {
        let mut left = self.held.clone();
        loop {
            match self.codec.decode(&mut left) {
                Ok(Some(Message::Chunk(Some(_)))) => {}
                Ok(Some(Message::Chunk(None))) => {
                    self.state = State::HeadClaim;
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
