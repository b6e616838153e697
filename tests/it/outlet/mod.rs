//! Tests of `src/outlet`: `GET /events`, formats, polls, tickets and browsers.

mod browser;
mod browser_websocket;
mod formats;
mod grpc;
mod grpc_cuts;
mod grpc_generated;
mod grpc_services;
mod grpc_session;
mod grpc_slow;
mod long_poll;
mod ndjson;
mod page;
mod page_load;
mod page_overview;
pub mod poll;
mod position;
pub mod presence;
mod round_trip;
mod sse;
pub mod tickets;
mod websocket;
mod websocket_access;
mod websocket_cuts;
mod websocket_pages;
mod websocket_presence;
mod websocket_publish;
