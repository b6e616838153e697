//! Drivers: they move a session's bytes to a client and know no format. [`body`] is pulled by an
//! HTTP response; [`reactor`] writes to sockets directly.

pub mod body;
pub mod reactor;
