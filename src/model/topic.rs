//! Topic names, and the patterns that match topics.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Name of a topic. Its grammar is that of a Pub/Sub resource id, so that every Pub/Sub topic can
/// have a channel of the same name.
///
/// A name has 3 to 255 characters: a letter, then letters, digits and `- . _ ~ + %`. It does not
/// begin with `goog` (<https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names>). A name
/// can therefore contain no line end and no slash, cannot be `..`, and needs no escaping in a
/// stream or a log.
///
/// A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Set of topics that a token grants or a reader asks for: all, one, or all whose names begin with
/// given whole segments.
///
/// A prefix ends with a dot, so that `order.*` does not match `orders-of-another`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicPattern {
    /// Pattern of all topics, written `*`.
    All,
    /// Pattern of one topic, written as its name: `orders`.
    Exact(Topic),
    /// Pattern of the topics whose names begin with this prefix. Written `orders.*`, stored as
    /// `orders.`.
    Prefix(Arc<str>),
}

/// Error for text that is not a topic name. Contains at most 64 characters of the text, so that a
/// hostile name cannot fill a log or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a topic name: expected 3 to 255 characters, first a letter, then letters, digits \
     and - . _ ~ + %, not beginning with goog"
)]
pub struct ParseTopicError(String);

/// Length of the longest name, in bytes.
const TOPIC_LEN_MAX: usize = 255;
/// Length of the shortest name, in bytes.
const TOPIC_LEN_MIN: usize = 3;
/// Characters of a rejected name that its error contains.
const SHOWN_CHARS_MAX: usize = 64;

impl Topic {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the topic that is named by the last segment of a resource name. For
    /// `projects/p/subscriptions/orders` this is `orders`.
    ///
    /// # Errors
    /// Fails when that segment is not a topic name.
    pub fn from_resource_name(name: &str) -> Result<Self, ParseTopicError> {
        name.rsplit('/').next().unwrap_or(name).parse()
    }

    /// Returns the parts of the name up to and with each of its dots: `a.` and `a.b.` for `a.b.c`.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        prefixes_of(&self.0)
    }
}

/// Returns the parts of a name, or of a prefix, up to and with each of its dots.
pub(crate) fn prefixes_of(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(dot, _)| name.get(..=dot))
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
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
        Err(ParseTopicError::new(name))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TopicPattern {
    /// Returns true if the pattern matches `topic`.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => exact == topic,
            Self::Prefix(prefix) => topic.as_str().starts_with(&**prefix),
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
        // The prefix is valid if a topic name can begin with it.
        format!("{prefix}.x").parse::<Topic>().map_err(|_| ParseTopicError::new(text))?;
        Ok(Self::Prefix(format!("{prefix}.").into()))
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

impl ParseTopicError {
    fn new(text: &str) -> Self {
        Self(text.chars().take(SHOWN_CHARS_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_the_grammar_of_resource_ids() {
        for good in ["abc", "a1-._~+%", &"x".repeat(255), "Orders"] {
            assert!(good.parse::<Topic>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1abc", "-abc", "goog-x", "a b", "a/b", "..", "aé", "a\nb", "a\0b"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(256).parse::<Topic>().is_err());
    }

    #[test]
    fn topic_is_the_last_segment_of_a_resource_name() {
        let topic = Topic::from_resource_name("projects/p/subscriptions/orders");
        assert_eq!(topic.as_ref().map(Topic::as_str), Ok("orders"));
        assert!(Topic::from_resource_name("projects/p/subscriptions/").is_err());
    }
}
