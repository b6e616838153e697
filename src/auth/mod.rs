//! Authentication and authorization: the key sets of token issuers, the checks of tokens, and the
//! topics that a token grants.
//!
//! [`push`] verifies the tokens of Pub/Sub's pushes, [`reader`] those of readers and publishers.
//! [`access`] decides which topics a reader gets, and [`publisher`] to which topics a client may
//! publish. Both kinds of token share [`jwks`] (keys), `jwt` (checks) and [`AuthError`] (the answer
//! to a refused request).

pub mod access;
mod error;
pub mod grant;
pub mod jwks;
mod jwt;
pub mod key_file;
mod key_set;
pub mod publisher;
pub mod push;
pub mod reader;

pub use crate::auth::error::AuthError;
