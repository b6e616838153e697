//! Chunks of HTTP/1.1 responses, written past whoever else writes to the socket.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Write as _},
    os::fd::AsFd,
};

use bytes::Bytes;
use rustix::net::SendFlags;

/// A chunk of up to so many bytes is joined with its framing for one plain write: the kernel takes
/// three small parts for more than a copy of them and one.
const JOINED_MAX_BYTES: usize = 2 * 1024;
/// What ends a response in chunks.
pub const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

thread_local! {
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is left of a chunk of which so much was taken. Empty when all of it was.
#[derive(Debug)]
pub struct Sent {
    pub bytes: usize,
    pub rest: Bytes,
}

/// Writes a chunk ([RFC 9112, section
/// 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1)) to a socket that does not block.
///
/// # Errors
/// When the connection is gone. That the socket takes nothing now is none.
pub fn send_chunk(io: impl AsFd, chunk: &Bytes) -> io::Result<Sent> {
    let mut size = io::Cursor::new([0; 18]);
    let fits = write!(size, "{:X}\r\n", chunk.len());
    debug_assert!(fits.is_ok(), "16 digits and a line end");
    let len = usize::try_from(size.position()).unwrap_or_default();
    let size = size.get_ref().get(..len).unwrap_or_default();
    let parts = [size, chunk, b"\r\n"];
    let written = if chunk.len() <= JOINED_MAX_BYTES {
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            for part in parts {
                joined.extend_from_slice(part);
            }
            rustix::net::send(&io, joined, SendFlags::NOSIGNAL)
        })
    } else {
        rustix::io::writev(&io, &parts.map(IoSlice::new))
    };
    let bytes = taken(written)?;
    let whole = parts.iter().map(|part| part.len()).sum::<usize>();
    let rest = match bytes {
        all if all == whole => Bytes::new(),
        some => Bytes::from(parts.concat()).split_off(some),
    };
    Ok(Sent { bytes, rest })
}

/// Writes what is left of a chunk, and returns how much of it was taken.
///
/// # Errors
/// As [`send_chunk`].
pub fn send_rest(io: impl AsFd, rest: &[u8]) -> io::Result<usize> {
    taken(rustix::net::send(io, rest, SendFlags::NOSIGNAL))
}

fn taken(written: rustix::io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        written => Ok(written?),
    }
}
