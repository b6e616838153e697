//! What arrives, in Pub/Sub's words.

use std::{borrow::Borrow, collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use bytes::Bytes;

/// One Pub/Sub message, decoded.
///
/// The fields are those of Pub/Sub's `PubsubMessage`
/// (<https://cloud.google.com/pubsub/docs/reference/rest/v1/PubsubMessage>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic whose channel it goes into.
    pub topic: Topic,
    /// The payload, already out of its base64. At most 10 MB when it comes from Pub/Sub.
    pub data: Bytes,
    /// At most 100 of them, says Pub/Sub; here the limit is the body's.
    pub attributes: BTreeMap<String, String>,
    /// Messages of one key arrive in the order in which they were published.
    pub ordering_key: Option<String>,
    /// Unique within a Pub/Sub topic. Without it a redelivery cannot be recognised.
    pub message_id: Option<String>,
    /// When Pub/Sub took the message, Unix milliseconds.
    pub publish_time_ms: Option<u64>,
}

/// A topic's name: Pub/Sub's resource id, so that any of its topics has a channel of its name.
///
/// 3 to 255 characters, the first a letter, of letters, digits and `- . _ ~ + %`, not beginning
/// with `goog` (<https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names>). So a name can
/// hold neither a line end nor a slash nor `..` as a whole, and needs no escaping in a stream or a
/// log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a name is no topic's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a topic name: 3 to 255 characters, a letter first, then letters, digits and \
     - . _ ~ + %, and not beginning with goog"
)]
pub struct ParseTopicError(String);

/// The longest name, in bytes.
const TOPIC_LEN_MAX: usize = 255;
/// The shortest name, in bytes.
const TOPIC_LEN_MIN: usize = 3;

impl Topic {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic that the last segment of a resource name gives, as in
    /// `projects/p/subscriptions/orders`.
    ///
    /// # Errors
    /// When that segment is not a resource id.
    pub fn of_resource(name: &str) -> Result<Self, ParseTopicError> {
        name.rsplit('/').next().unwrap_or(name).parse()
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Topic {
    /// Its parts up to each of its dots, as in `a.` and `a.b.` for `a.b.c`.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').filter_map(|(dot, _)| self.0.get(..=dot))
    }
}

/// Which topics somebody may read: one, or all that begin with some whole parts of a name. A prefix
/// ends with a dot, so that `order.*` is no way to `orders-of-another`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicPattern {
    /// `*`.
    All,
    /// `orders`.
    Exact(Topic),
    /// `orders.*`, here without the star.
    Prefix(Arc<str>),
}

impl TopicPattern {
    /// Whether a topic is one of them.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => exact == topic,
            Self::Prefix(prefix) => topic.as_str().starts_with(&**prefix),
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Exact(topic) => topic.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for TopicPattern {
    type Err = ParseTopicError;

    fn from_str(text: &str) -> Result<Self, ParseTopicError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let Some(prefix) = text.strip_suffix(".*") else { return text.parse().map(Self::Exact) };
        // What comes before the dot must be able to begin a name.
        format!("{prefix}.x")
            .parse::<Topic>()
            .map_err(|_| ParseTopicError(text.chars().take(64).collect()))?;
        Ok(Self::Prefix(format!("{prefix}.").into()))
    }
}

impl FromStr for Topic {
    type Err = ParseTopicError;

    fn from_str(name: &str) -> Result<Self, ParseTopicError> {
        let length_fits = (TOPIC_LEN_MIN..=TOPIC_LEN_MAX).contains(&name.len());
        let letter_first = name.starts_with(|first: char| first.is_ascii_alphabetic());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+%".contains(&byte);
        if length_fits && letter_first && name.bytes().all(allowed) && !name.starts_with("goog") {
            return Ok(Self(name.into()));
        }
        // What is shown is cut, so that a hostile name cannot fill a log or an answer.
        Err(ParseTopicError(name.chars().take(64).collect()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_the_resource_id_grammar() {
        for good in ["abc", "a1-._~+%", &"x".repeat(255), "Orders"] {
            assert!(good.parse::<Topic>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1abc", "-abc", "goog-x", "a b", "a/b", "..", "aé", "a\nb", "a\0b"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(256).parse::<Topic>().is_err());
    }

    #[test]
    fn a_resource_name_gives_its_last_segment() {
        let topic = Topic::of_resource("projects/p/subscriptions/orders").map(|t| t.to_string());
        assert_eq!(topic.as_deref(), Ok("orders"));
        assert!(Topic::of_resource("projects/p/subscriptions/").is_err());
    }
}
