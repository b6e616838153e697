//! Presence: who takes part in a topic, as data.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::model::topic::Topic;

/// Longest name of a member, in bytes.
pub const MEMBER_NAME_MAX_BYTES: usize = 255;

/// Name of a member: the subject of a token, or a name that an anonymous reader gives itself.
///
/// It has 1 to 255 bytes, no control characters, and no space at either end. It can contain
/// anything else, such as HTML. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberName(Arc<str>);

/// Error for text that is not the name of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseMemberNameError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text has more than [`MEMBER_NAME_MAX_BYTES`] bytes.
    #[error("is longer than {MEMBER_NAME_MAX_BYTES} bytes")]
    TooLong,
    /// The text contains a control character, such as a line end.
    #[error("contains a control character")]
    Control,
    /// The text begins or ends with white space.
    #[error("begins or ends with a space")]
    Space,
}

/// Member of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Name of the member.
    pub name: MemberName,
    /// Number of the member's streams. 0 while the member may be reconnecting.
    pub streams: usize,
}

/// Members of a topic at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Members in the order of their names.
    pub members: Vec<Member>,
    /// Number of streams without a name.
    pub anonymous: usize,
    /// True if there are members that are not listed.
    pub more: bool,
}

/// Message about the members of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Topic that the message is about.
    pub topic: Topic,
    /// Content of the message.
    pub update: PresenceUpdate,
}

/// Content of a message about the members of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceUpdate {
    /// List of the members, or its first part. It replaces what the reader knows.
    Members(Roster),
    /// Next part of the list.
    Also(Vec<Member>),
    /// A member was added.
    Join(MemberName),
    /// A member was removed.
    Leave(MemberName),
}

impl MemberName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MemberName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MemberName {
    type Err = ParseMemberNameError;

    fn from_str(text: &str) -> Result<Self, ParseMemberNameError> {
        if text.is_empty() {
            return Err(ParseMemberNameError::Empty);
        }
        if MEMBER_NAME_MAX_BYTES < text.len() {
            return Err(ParseMemberNameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ParseMemberNameError::Control);
        }
        if text.trim() != text {
            return Err(ParseMemberNameError::Space);
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_without_control_characters() {
        for good in ["a", "alice@example.com", "<b>x</b>", "Zoë \"Z\" \\ 日本", &"x".repeat(255)]
        {
            assert_eq!(good.parse::<MemberName>().unwrap().as_str(), good);
        }
        for (bad, err) in [
            ("", ParseMemberNameError::Empty),
            (&*"x".repeat(256), ParseMemberNameError::TooLong),
            (&*"é".repeat(128), ParseMemberNameError::TooLong),
            ("a\nb", ParseMemberNameError::Control),
            ("a\0", ParseMemberNameError::Control),
            ("a\u{85}b", ParseMemberNameError::Control),
            (" a", ParseMemberNameError::Space),
            ("a\u{2003}", ParseMemberNameError::Space),
            ("a\u{2028}", ParseMemberNameError::Space),
        ] {
            assert_eq!(bad.parse::<MemberName>(), Err(err), "{bad:?}");
        }
    }
}
