//! Tests of `src/hub`: rings, cursors, gaps and groups, without a socket.

mod fanout;
mod model;
mod patterns;
pub mod store;
mod threads;
