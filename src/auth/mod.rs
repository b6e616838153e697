//! Authentication and authorization: the key sets of token issuers, the checks of tokens, and the
//! topics that a token grants.
//!
//! [`push`] verifies the tokens of Pub/Sub's pushes, [`reader`] those of readers, and [`access`]
//! decides which topics a reader gets. Both kinds of token share [`jwks`] (keys), `jwt` (checks)
//! and [`AuthError`] (the answer to a refused request).

pub mod access;
mod error;
pub mod grant;
pub mod jwks;
mod jwt;
pub mod key_file;
mod key_set;
pub mod push;
pub mod reader;

pub use crate::auth::error::AuthError;
