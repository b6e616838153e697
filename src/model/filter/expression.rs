//! Expression of a filter: a tree of conditions in canonical order.

use std::fmt;

use crate::model::filter::text::{Key, Text};

/// Condition, or conditions joined by an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expression {
    /// The message has an attribute with this key.
    Has(Box<str>),
    /// The message has an attribute with this key and this value.
    Equals(Box<str>, Box<str>),
    /// The message has an attribute with this key and a value that begins with this prefix.
    HasPrefix(Box<str>, Box<str>),
    Not(Box<Self>),
    /// Two or more expressions in order, each once. None of them is an `And`.
    And(Box<[Self]>),
    /// Two or more expressions in order, each once. None of them is an `Or`.
    Or(Box<[Self]>),
}

impl Expression {
    /// Negates an expression. Two negations cancel each other.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Joins one or more expressions by `AND`.
    pub(super) fn all(operands: Vec<Self>) -> Self {
        let flat = operands.into_iter().flat_map(|operand| match operand {
            Self::And(inner) => inner.into_vec(),
            other => vec![other],
        });
        Self::one_or(flat.collect(), Self::And)
    }

    /// Joins one or more expressions by `OR`.
    pub(super) fn any(operands: Vec<Self>) -> Self {
        let flat = operands.into_iter().flat_map(|operand| match operand {
            Self::Or(inner) => inner.into_vec(),
            other => vec![other],
        });
        Self::one_or(flat.collect(), Self::Or)
    }

    fn one_or(mut operands: Vec<Self>, joined: fn(Box<[Self]>) -> Self) -> Self {
        operands.sort();
        operands.dedup();
        match operands.pop() {
            Some(only) if operands.is_empty() => only,
            last => joined(operands.into_iter().chain(last).collect()),
        }
    }

    /// Returns the expressions that `AND` joins at the top of the tree.
    pub(super) fn conjuncts(&self) -> &[Self] {
        match self {
            Self::And(operands) => operands,
            other => std::slice::from_ref(other),
        }
    }

    /// Returns true if the expression is true for the attributes of a message.
    pub(super) fn matches<'a>(&self, attribute: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Has(key) => attribute(key).is_some(),
            Self::Equals(key, value) => attribute(key) == Some(value),
            Self::HasPrefix(key, prefix) => {
                attribute(key).is_some_and(|value| value.starts_with(&**prefix))
            }
            Self::Not(inner) => !inner.matches(attribute),
            Self::And(operands) => operands.iter().all(|operand| operand.matches(attribute)),
            Self::Or(operands) => operands.iter().any(|operand| operand.matches(attribute)),
        }
    }

    fn is_joined(&self) -> bool {
        matches!(self, Self::And(_) | Self::Or(_))
    }

    /// Writes an operand, in parentheses if it is joined itself.
    fn write_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_joined() { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for Expression {
    /// Writes the canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, operands) = match self {
            Self::Has(key) => return write!(f, "attributes:{}", Key(key)),
            Self::Equals(key, value) => {
                return write!(f, "attributes.{} = {}", Key(key), Text(value));
            }
            Self::HasPrefix(key, prefix) => {
                return write!(f, "hasPrefix(attributes.{}, {})", Key(key), Text(prefix));
            }
            Self::Not(inner) => {
                if let Self::Equals(key, value) = &**inner {
                    return write!(f, "attributes.{} != {}", Key(key), Text(value));
                }
                f.write_str("NOT ")?;
                return inner.write_operand(f);
            }
            Self::And(operands) => (" AND ", operands),
            Self::Or(operands) => (" OR ", operands),
        };
        for (at, operand) in operands.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { operator })?;
            operand.write_operand(f)?;
        }
        Ok(())
    }
}
