//! Next step: what a session asks its driver to do.

use bytes::Bytes;
use tokio::time::Instant;

use crate::model::control::Control;

/// Next step of a driver for a session.
#[derive(Debug)]
pub(crate) enum Next {
    /// Writes encoded events, or a part of a large one.
    Give(Bytes),
    /// Encodes and writes a control message.
    Say(Control),
    /// Waits until events are published, or until this time at the latest: see
    /// [`Session::wait`](super::Session::wait).
    WaitUntil(Instant),
    /// Asks again after other tasks of the thread have run: there is more to read.
    Yield,
    /// Ends the response: the last message was sent.
    Finished,
    /// Cuts the connection: a large event left its ring while it was being written, or there is no
    /// memory to encode it. The reader reconnects with the id before it, and receives the gap or
    /// the event.
    FellBehind,
}
