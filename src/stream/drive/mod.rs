//! Drivers: write a session's bytes to a client, and know no format. [`body`] is polled by an HTTP
//! response; [`reactor`] writes to sockets directly.

pub(crate) mod body;
pub(crate) mod reactor;
