//! Tests of `src/auth`: key sets, push tokens and reader tokens.

mod filter;
mod jwks;
mod push;
pub mod reader;
