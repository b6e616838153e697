//! How events go out: who may read what, the stream's blocks, and the stream.

pub mod access;
pub mod blocks;
pub mod page;
pub mod query;
pub mod sse;
pub mod stream;
