//! Filter of a reader: an expression over the attributes of messages, in Pub/Sub's own language
//! (<https://cloud.google.com/pubsub/docs/subscription-message-filter>).

mod cache;
mod expression;
mod parse;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

pub use cache::FilterCache;
use expression::Expression;
pub use parse::FilterError;
use parse::Parser;

/// Longest filter that a reader or a token may send, in bytes. Pub/Sub allows 256.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// Largest number of conditions in a filter, so that its evaluation takes about a microsecond.
pub const FILTER_CONDITIONS_MAX: usize = 50;
/// Largest number of parentheses and `NOT` around a condition, so that recursion is bounded.
pub const FILTER_DEPTH_MAX: usize = 16;

/// Longest canonical form of a filter within [`FILTER_BYTES_MAX`]: the canonical form adds spaces.
const CANONICAL_BYTES_MAX: usize = 2 * FILTER_BYTES_MAX;
/// Memory of a filter in addition to its canonical form, in bytes for each byte of that form: the
/// tree has each text again, and a node for each condition.
const TREE_BYTES_PER_BYTE: usize = 4;

/// Parsed filter. A clone shares its memory.
///
/// Two filters are equal if they have the same canonical form: the same conditions, in any order,
/// however they are written.
#[derive(Clone)]
pub struct Filter(Arc<Compiled>);

struct Compiled {
    canonical: Box<str>,
    expression: Expression,
}

impl Filter {
    /// Parses the text of a reader or a token.
    ///
    /// # Errors
    /// Names the position of the first error and what was expected there.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Parser::parse(text, FILTER_BYTES_MAX).map(Self::new)
    }

    /// Parses a canonical form, which can be longer than the text that it was made from.
    ///
    /// # Errors
    /// Fails like [`Filter::parse`].
    pub fn parse_canonical(text: &str) -> Result<Self, FilterError> {
        Parser::parse(text, CANONICAL_BYTES_MAX).map(Self::new)
    }

    fn new(expression: Expression) -> Self {
        Self(Arc::new(Compiled { canonical: expression.to_string().into(), expression }))
    }

    /// Combines two filters: the result matches what both match.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = [self, other].map(|filter| filter.0.expression.clone());
        Self::new(Expression::all(both.into()))
    }

    /// Returns true if the filter shows a message. `attribute` returns the value of an attribute by
    /// its key, if the message has it.
    pub fn matches<'a>(&self, attribute: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.expression.matches(&attribute)
    }

    /// Returns true if each condition that `wider` joins with `AND` is one of this filter too, so
    /// that `wider` shows everything that this filter shows.
    pub fn is_within(&self, wider: &Self) -> bool {
        let own = self.0.expression.conjuncts();
        wider.0.expression.conjuncts().iter().all(|condition| own.contains(condition))
    }

    /// Returns the canonical form, which is a filter too.
    pub fn as_str(&self) -> &str {
        &self.0.canonical
    }

    /// Returns the estimated memory of the filter, in bytes.
    pub fn bytes(&self) -> usize {
        self.as_str().len() * (1 + TREE_BYTES_PER_BYTE)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.as_str() == other.as_str()
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.as_str()).finish()
    }
}
