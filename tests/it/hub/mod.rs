//! Tests of `src/hub`: rings, cursors, gaps and groups, without a socket.

mod fanout;
mod filter;
pub mod helpers;
mod model;
mod patterns;
mod store;
mod threads;
