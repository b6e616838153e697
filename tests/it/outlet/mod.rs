//! Tests of `src/outlet`: `GET /events`, formats, polls, tickets and browsers.

mod browser;
mod formats;
mod ndjson;
pub mod poll;
mod position;
mod round_trip;
mod sse;
pub mod tickets;
