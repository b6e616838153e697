//! Tests of `src/outlet`: `GET /events`, formats, tickets and browsers.

mod browser;
mod formats;
mod ndjson;
mod round_trip;
mod sse;
pub mod tickets;
