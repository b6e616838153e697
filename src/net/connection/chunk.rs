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
/// 16 digits and a line end.
const SIZE_BYTES: usize = 18;
/// What ends a response in chunks.
pub const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// The last chunks that were joined with their framing: the same few go to many streams.
#[derive(Default)]
struct Joined {
    /// Each held, so that no other bytes can take its place in memory.
    last: [(Bytes, Vec<u8>); JOINED_KEPT],
    next: usize,
}

/// A worker that is behind writes some events to each stream in turn.
const JOINED_KEPT: usize = 4;

thread_local! {
    static JOINED: RefCell<Joined> = RefCell::default();
}

impl Joined {
    fn of(&mut self, chunk: &Bytes) -> &[u8] {
        let is_it =
            |(held, _): &(Bytes, _)| held.as_ptr() == chunk.as_ptr() && held.len() == chunk.len();
        let at = self.last.iter().position(is_it).unwrap_or_else(|| {
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

/// A chunk between its size and a line end.
fn framed<'a>(chunk: &'a [u8], room: &'a mut [u8; SIZE_BYTES]) -> [&'a [u8]; 3] {
    let mut size = io::Cursor::new(&mut room[..]);
    let fits = write!(size, "{:X}\r\n", chunk.len());
    debug_assert!(fits.is_ok(), "16 digits and a line end");
    let len = usize::try_from(size.position()).unwrap_or_default();
    [room.get(..len).unwrap_or_default(), chunk, b"\r\n"]
}

/// A chunk as it goes out, for many to be sent with [`send_rest`].
pub fn whole_chunk(chunk: &[u8]) -> Bytes {
    framed(chunk, &mut [0; SIZE_BYTES]).concat().into()
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
    if chunk.len() <= JOINED_MAX_BYTES {
        return JOINED.with_borrow_mut(|joined| {
            let whole = joined.of(chunk);
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
