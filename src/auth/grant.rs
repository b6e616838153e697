//! What a reader's token grants, and whom it counts for.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::model::topic::TopicPattern;

/// What a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is: the claim `sub`, unless that is empty.
    pub subject: Option<Arc<str>>,
    /// Whom limits per subject count it for.
    pub holder: Holder,
    pub topics: Arc<[TopicPattern]>,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// Whom limits per subject count a token for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The subject that the token names.
    Subject(Arc<str>),
    /// The token itself, which names no subject: its `jti`.
    Token(Arc<str>),
    /// The token itself, which has no `jti` either: a hash of what its issuer has signed. (Not of
    /// the signature: of some algorithms anyone can make a second valid one from the first.)
    Signed(u64),
}

impl Holder {
    /// Of a token that names neither its subject nor itself. It is the same on each replica, and
    /// whoever has the token cannot change it.
    pub fn of_signed(token: &str) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hasher = DefaultHasher::new();
        signed.hash(&mut hasher);
        Self::Signed(hasher.finish())
    }
}

impl fmt::Display for Holder {
    /// Writes a text that differs for any two of them, and is the same on each replica.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "sub:{subject}"),
            Self::Token(id) => write!(f, "jti:{id}"),
            Self::Signed(hash) => write!(f, "hash:{hash:016x}"),
        }
    }
}

/// A grant as it is kept for a ticket, or sent to another replica.
#[derive(Serialize, Deserialize)]
struct Wire {
    subject: Option<String>,
    /// As [`Holder::Token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// As [`Holder::Signed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<u64>,
    topics: Vec<String>,
    expires_ms: u64,
}

impl Grant {
    /// As JSON.
    pub fn write(&self) -> String {
        let (token, signed) = match &self.holder {
            Holder::Subject(_) => (None, None),
            Holder::Token(id) => (Some(id.to_string()), None),
            Holder::Signed(hash) => (None, Some(*hash)),
        };
        let wire = Wire {
            subject: self.subject.as_deref().map(str::to_owned),
            token,
            signed,
            topics: self.topics.iter().map(ToString::to_string).collect(),
            expires_ms: self.expires_ms,
        };
        // Texts and a number: nothing in it can fail.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// None if it is no grant.
    pub fn read(text: &str) -> Option<Self> {
        let wire: Wire = serde_json::from_str(text).ok()?;
        let topics: Result<_, _> = wire.topics.iter().map(|topic| topic.parse()).collect();
        let subject: Option<Arc<str>> = wire.subject.filter(|text| !text.is_empty()).map(Arc::from);
        let holder = match (&subject, wire.token, wire.signed) {
            (Some(subject), ..) => Holder::Subject(Arc::clone(subject)),
            (None, Some(id), _) => Holder::Token(id.into()),
            (None, None, Some(hash)) => Holder::Signed(hash),
            // As a replica of an earlier version writes one without a subject.
            (None, None, None) => Holder::Signed(0),
        };
        Some(Self { subject, holder, topics: topics.ok()?, expires_ms: wire.expires_ms })
    }
}
