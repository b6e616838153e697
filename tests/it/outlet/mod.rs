//! Tests of `src/outlet`: `GET /events`, tickets and browsers.

mod browser;
mod round_trip;
mod sse;
pub mod tickets;
