//! Writes chunks of HTTP/1.1 responses directly to a non-blocking socket.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Write as _},
    os::fd::AsFd,
};

use bytes::Bytes;
use rustix::net::SendFlags;

/// Length of the longest chunk that is copied together with its framing and sent in one buffer. For
/// small chunks the copy costs less than a vectored write of three parts.
const JOINED_MAX_BYTES: usize = 2 * 1024;
/// Length of the longest size line: 16 hexadecimal digits and CRLF.
const SIZE_BYTES: usize = 18;
/// Chunk that ends a chunked response.
pub(crate) const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// Cache of the last chunks joined with their framing: the same few chunks go to many streams.
#[derive(Default)]
struct Joined {
    /// Chunks and their framed copies. Each chunk is kept alive, so that its address identifies it.
    last: [(Bytes, Vec<u8>); JOINED_KEPT],
    /// Index of the entry that is replaced next.
    next: usize,
}

/// Number of cached chunks. A worker that catches up writes several events to each stream in turn.
const JOINED_KEPT: usize = 4;

thread_local! {
    static JOINED: RefCell<Joined> = RefCell::default();
}

impl Joined {
    /// Returns the chunk with its framing, from the cache if possible.
    fn frame(&mut self, chunk: &Bytes) -> &[u8] {
        let is_same =
            |(held, _): &(Bytes, _)| held.as_ptr() == chunk.as_ptr() && held.len() == chunk.len();
        let at = self.last.iter().position(is_same).unwrap_or_else(|| {
            let at = self.next;
            self.next = (at + 1) % JOINED_KEPT;
            if let Some((held, joined)) = self.last.get_mut(at) {
                held.clone_from(chunk);
                joined.clear();
                for part in framed(chunk, &mut [0; SIZE_BYTES]) {
                    joined.extend_from_slice(part);
                }
            }
            at
        });
        self.last.get(at).map_or(&[], |(_, joined)| joined)
    }
}

/// Returns the size line, the chunk, and its line end. `room` holds the size line.
fn framed<'a>(chunk: &'a [u8], room: &'a mut [u8; SIZE_BYTES]) -> [&'a [u8]; 3] {
    let mut size = io::Cursor::new(&mut room[..]);
    let fits = write!(size, "{:X}\r\n", chunk.len());
    debug_assert!(fits.is_ok(), "16 digits and a line end");
    let len = usize::try_from(size.position()).unwrap_or_default();
    [room.get(..len).unwrap_or_default(), chunk, b"\r\n"]
}

/// Returns the chunk with its framing, to be sent to many sockets with [`send_rest`].
pub(crate) fn whole_chunk(chunk: &[u8]) -> Bytes {
    chunk_after(&[], chunk)
}

/// Returns `head` and then the chunk with its framing, to be sent with [`send_rest`].
pub(crate) fn chunk_after(head: &[u8], chunk: &[u8]) -> Bytes {
    let mut room = [0; SIZE_BYTES];
    let [size, chunk, end] = framed(chunk, &mut room);
    [head, size, chunk, end].concat().into()
}

/// Result of writing a chunk.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Number of bytes that the socket took, framing included.
    pub bytes: usize,
    /// Bytes that the socket did not take. Empty when it took the whole chunk.
    pub rest: Bytes,
}

/// Writes a chunk ([RFC 9112, section
/// 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1)) to a non-blocking socket.
///
/// # Errors
/// Fails when the connection is broken. A full socket is not an error: it takes 0 bytes.
pub(crate) fn send_chunk(io: impl AsFd, chunk: &Bytes) -> io::Result<Sent> {
    if chunk.len() <= JOINED_MAX_BYTES {
        return JOINED.with_borrow_mut(|joined| {
            let whole = joined.frame(chunk);
            let bytes = taken(rustix::net::send(&io, whole, SendFlags::NOSIGNAL))?;
            let rest = whole.get(bytes..).unwrap_or_default();
            Ok(Sent { bytes, rest: Bytes::copy_from_slice(rest) })
        });
    }
    let mut room = [0; SIZE_BYTES];
    let parts = framed(chunk, &mut room);
    let bytes = taken(rustix::io::writev(&io, &parts.map(IoSlice::new)))?;
    let whole = parts.iter().map(|part| part.len()).sum::<usize>();
    let rest = match bytes {
        all if all == whole => Bytes::new(),
        some => Bytes::from(parts.concat()).split_off(some),
    };
    Ok(Sent { bytes, rest })
}

/// Writes the rest of a chunk. Returns the number of bytes that the socket took.
///
/// # Errors
/// Fails as [`send_chunk`] does.
pub(crate) fn send_rest(io: impl AsFd, rest: &[u8]) -> io::Result<usize> {
    taken(rustix::net::send(io, rest, SendFlags::NOSIGNAL))
}

/// Returns the number of bytes written, which is 0 for a full socket and an interrupted call.
fn taken(written: rustix::io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        written => Ok(written?),
    }
}
