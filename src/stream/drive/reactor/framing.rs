//! Framing of what a stream writes to its socket: chunks of HTTP/1.1, or nothing.

use std::io;

use bytes::Bytes;
use rustix::fd::AsFd;

use crate::{
    model::encode::Format,
    net::http1::chunk::{LAST_CHUNK, Sent, chunk_after, send_chunk, send_rest, whole_chunk},
};

/// Framing of the parts of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each part is a chunk of HTTP/1.1.
    Chunks,
    /// The format has frames of its own.
    OfFormat,
}

impl Framing {
    /// Returns the framing of a format.
    pub(super) fn of(format: Format) -> Self {
        if format.is_framed() { Self::OfFormat } else { Self::Chunks }
    }

    /// Returns a part as it is sent to many sockets.
    pub(super) fn whole(self, part: &Bytes) -> Bytes {
        match self {
            Self::Chunks => whole_chunk(part),
            Self::OfFormat => part.clone(),
        }
    }

    /// Returns `head` and then a part.
    pub(super) fn after(self, head: &[u8], part: &[u8]) -> Bytes {
        match self {
            Self::Chunks => chunk_after(head, part),
            Self::OfFormat => [head, part].concat().into(),
        }
    }

    /// Writes a part to a non-blocking socket.
    ///
    /// # Errors
    /// Fails as [`send_chunk`] does.
    pub(super) fn send(self, io: impl AsFd, part: &Bytes) -> io::Result<Sent> {
        match self {
            Self::Chunks => send_chunk(io, part),
            Self::OfFormat => {
                let bytes = send_rest(io, part)?;
                Ok(Sent { bytes, rest: part.slice(bytes..) })
            }
        }
    }

    /// Returns what follows the last part.
    pub(super) fn end(self) -> Bytes {
        match self {
            Self::Chunks => LAST_CHUNK,
            Self::OfFormat => Bytes::new(),
        }
    }
}
