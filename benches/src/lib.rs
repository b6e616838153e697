//! What the measuring tools share: a client that holds thousands of streams on one thread and
//! checks each of them, a look into a server's `/proc`, and how runs are compared.

use std::error::Error as StdError;

// How runs are compared.
pub mod compare;

// What it is compared with.
pub mod floor;
pub mod naive;

// The pure parts.
pub mod pure;

// The load generator.
pub mod arguments;
pub mod client;
pub mod clock;
pub mod dialect;
pub mod gateway;
pub mod http;
pub mod modes;
pub mod payload;
pub mod process;
pub mod publisher;
pub mod report;
pub mod socket;
pub mod sse;
pub mod stream;
pub mod tally;

/// What ends a run. Nothing is handled, so a text is enough.
pub type Error = Box<dyn StdError + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;
