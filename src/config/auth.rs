//! Settings of tokens: clients that may push, publish and read.

use std::path::PathBuf;

/// Clients that may push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushAuth {
    /// No one.
    Off,
    /// Anyone who can connect.
    None,
    /// Pub/Sub, with an OIDC token.
    Oidc {
        /// Accepted audiences: the token must have one of them.
        audiences: Vec<String>,
        /// Accepted service accounts: the token must come from one of them.
        service_accounts: Vec<String>,
    },
}

/// Clients that may read.
#[derive(Debug, Clone)]
pub enum ReadAuth {
    /// Anyone who can connect.
    Anonymous,
    /// Readers with a valid token.
    Jwt(Box<ReadJwt>),
}

/// Clients that may publish.
#[derive(Debug, Clone)]
pub enum PublishAuth {
    /// No one: publishing is off.
    Off,
    /// Anyone who can connect.
    None,
    /// Publishers with a valid token, which the checks of readers' tokens verify.
    Jwt(Box<ReadJwt>),
}

/// Checks of the tokens of readers and publishers, and the claim with the topics to read.
#[derive(Debug, Clone)]
pub struct ReadJwt {
    /// Source of the keys.
    pub keys: ReadKeys,
    /// Accepted audiences. If empty, any audience is accepted.
    pub audiences: Vec<String>,
    /// Accepted issuers. If empty, any issuer is accepted.
    pub issuers: Vec<String>,
    /// Name of the cookie that may hold a token.
    pub cookie: Option<String>,
    /// Name of the claim that lists a reader's topics.
    pub topics_claim: String,
}

/// Source of the keys of readers' tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadKeys {
    /// Key set (JWKS) at a URL.
    Url(String),
    /// File with one key.
    File(PathBuf),
}
