//! Who may push and who may read: key sets, the checks of tokens, and what a token grants.

pub mod access;
pub mod grant;
pub mod jwks;
pub mod push;
pub mod reader;
