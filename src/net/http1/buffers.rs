//! Buffers that the connections of a thread share, so that one that waits needs none of its own.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// Number of bytes read by one system call.
const READ_BYTES: usize = 64 * 1024;
/// Number of buffers kept for reuse. It is 2, because the request that actix keeps in its pool may
/// still refer to the bytes of the last one.
const SPARE_MAX: usize = 2;
/// Limit of the bytes that were read into a buffer kept for reuse.
const SPARE_MAX_BYTES: usize = 16 * 1024;

thread_local! {
    /// Buffer that bytes are read into first.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// Empty buffers of connections that wait, for connections that read.
    static SPARE: RefCell<VecDeque<BytesMut>> = RefCell::default();
}

/// Reads available bytes and gives them to `take`. Returns their number, which is 0 at the end.
pub(super) fn poll_scratch(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut into = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut into))?;
        take(into.filled());
        Poll::Ready(Ok(into.filled().len()))
    })
}

/// Keeps an empty buffer for reuse, into which `received` bytes were read.
pub(super) fn recycle(buffer: BytesMut, received: usize) {
    if !(1..=SPARE_MAX_BYTES).contains(&received) {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push_back(buffer);
        if SPARE_MAX < spare.len() {
            spare.pop_front();
        }
    });
}

/// Returns an empty buffer with room for `bytes`.
pub(super) fn spare(bytes: usize) -> BytesMut {
    let oldest = |spare: &mut VecDeque<_>| (spare.len() == SPARE_MAX).then(|| spare.pop_front());
    let mut spare: BytesMut = SPARE.with_borrow_mut(oldest).flatten().unwrap_or_default();
    if spare.try_reclaim(bytes) {
        return spare;
    }
    BytesMut::with_capacity(bytes.next_power_of_two())
}
