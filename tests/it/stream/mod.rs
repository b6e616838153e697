//! Tests of `src/stream`: replay, direct writes, broadcasts, slow readers and drain.

mod broadcast;
mod direct_writes;
mod drain;
mod drain_grpc;
mod drain_websockets;
pub mod filter;
mod folds;
mod followed_topics;
mod idle_websockets;
mod patterns;
mod reactor;
mod resume;
mod slow_readers;
