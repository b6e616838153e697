//! Grant of a token: its topics, its expiry, and the holder that limits count.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::model::{filter::Filter, topic::TopicPattern};

/// Topics that a token grants, to whom and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Subject of the token: the claim `sub`. `None` when the token has none or an empty one.
    pub subject: Option<Arc<str>>,
    /// Holder of the token, which limits per subject count.
    pub holder: Holder,
    /// Patterns of the topics that its bearer may read.
    pub topics: Arc<[TopicPattern]>,
    /// Patterns of the topics that its bearer may publish to: the claim `publish`.
    pub publish: Arc<[TopicPattern]>,
    /// Filter of the token: the claim `filter`. `None` if its bearer may read all events.
    pub filter: Option<Filter>,
    /// Expiry of the token in Unix milliseconds.
    pub expires_ms: u64,
}

/// Holder of a token: the identity that limits per subject count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Subject of the token: the claim `sub`.
    Subject(Arc<str>),
    /// Token without a subject: the claim `jti`.
    Token(Arc<str>),
    /// Token with neither `sub` nor `jti`: a hash of the part that its issuer has signed. The
    /// signature is not hashed: for some algorithms anyone can make a second valid signature from
    /// the first.
    Signed(u64),
}

impl Holder {
    /// Returns the holder of a token that has neither `sub` nor `jti`. It is the same on each
    /// replica, and the bearer of the token cannot change it.
    pub fn of_signed(token: &str) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hasher = DefaultHasher::new();
        signed.hash(&mut hasher);
        Self::Signed(hasher.finish())
    }
}

impl fmt::Display for Holder {
    /// Writes a text that differs for any two holders and is the same on each replica.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "sub:{subject}"),
            Self::Token(id) => write!(f, "jti:{id}"),
            Self::Signed(hash) => write!(f, "hash:{hash:016x}"),
        }
    }
}

/// JSON form of a grant, which tickets and other replicas hold.
#[derive(Serialize, Deserialize)]
struct GrantJson {
    subject: Option<String>,
    /// Id of a [`Holder::Token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Hash of a [`Holder::Signed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<u64>,
    topics: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    publish: Vec<String>,
    /// Canonical form of the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    expires_ms: u64,
}

impl Grant {
    /// Encodes the grant as JSON.
    pub fn to_json(&self) -> String {
        let (token, signed) = match &self.holder {
            Holder::Subject(_) => (None, None),
            Holder::Token(id) => (Some(id.to_string()), None),
            Holder::Signed(hash) => (None, Some(*hash)),
        };
        let json = GrantJson {
            subject: self.subject.as_deref().map(str::to_owned),
            token,
            signed,
            topics: self.topics.iter().map(ToString::to_string).collect(),
            publish: self.publish.iter().map(ToString::to_string).collect(),
            filter: self.filter.as_ref().map(|filter| filter.as_str().to_owned()),
            expires_ms: self.expires_ms,
        };
        // The struct holds only strings and numbers, so encoding cannot fail.
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// Decodes a grant from JSON. Returns `None` for any other text.
    pub fn from_json(text: &str) -> Option<Self> {
        let json: GrantJson = serde_json::from_str(text).ok()?;
        let patterns = |texts: &[String]| -> Option<Arc<[TopicPattern]>> {
            texts.iter().map(|text| text.parse().ok()).collect()
        };
        let (topics, publish) = (patterns(&json.topics)?, patterns(&json.publish)?);
        let filter = json.filter.map(|text| Filter::parse_canonical(&text)).transpose().ok()?;
        let subject: Option<Arc<str>> = json.subject.filter(|text| !text.is_empty()).map(Arc::from);
        let holder = match (&subject, json.token, json.signed) {
            (Some(subject), ..) => Holder::Subject(Arc::clone(subject)),
            (None, Some(id), _) => Holder::Token(id.into()),
            (None, None, Some(hash)) => Holder::Signed(hash),
            // A replica of an earlier version writes no holder.
            (None, None, None) => Holder::Signed(0),
        };
        Some(Self { subject, holder, topics, publish, filter, expires_ms: json.expires_ms })
    }
}
