//! Parser of filters: recursive descent over the text.

use crate::model::filter::{
    FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX,
    expression::Expression,
    text::{is_key_char, unescape},
};

/// Error in the text of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}, expected {expected}")]
pub struct FilterError {
    /// Position of the error: the first character has the position 1.
    pub position: usize,
    /// Text that would be right at this position, or the limit that the filter exceeds.
    pub expected: &'static str,
}

/// Parser, with the part of the text that it has read.
pub(super) struct Parser<'a> {
    text: &'a str,
    /// Bytes that were read.
    at: usize,
    conditions: usize,
}

/// Operator that joins conditions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    And,
    Or,
}

const CONDITION: &str = "a condition: attributes:KEY, attributes.KEY = \"VALUE\", \
     attributes.KEY != \"VALUE\", hasPrefix(attributes.KEY, \"PREFIX\"), NOT, or a parenthesis";
const CONTINUATION: &str = "AND or OR, in upper case, or the end of the filter";
const CLOSING: &str = "AND or OR, in upper case, or a closing parenthesis";
const MIXED: &str =
    "parentheses where AND and OR are mixed, as in attributes:a AND (attributes:b OR attributes:c)";
const TOO_LONG: &str = "the end of the filter: a filter has at most 1024 bytes";
const TOO_MANY: &str = "the end of the filter: a filter has at most 50 conditions";
const TOO_DEEP: &str = "a condition: parentheses and NOT are nested at most 16 deep";
const MEMBER: &str = "a colon or a dot after attributes, as in attributes:KEY";
const COMPARISON: &str =
    "= or !=, as in attributes.KEY = \"VALUE\"; attributes:KEY matches any value";
const KEY: &str = "the key of an attribute: letters, digits, hyphens and underscores, or a text in \
     double quotes";
const QUOTES: &str = "double quotes around a key that has characters other than letters, digits, \
     hyphens and underscores";
const VALUE: &str = "a text in double quotes, as in \"VALUE\"";
const CLOSING_QUOTE: &str = "a closing double quote";
const ESCAPE: &str = "an escape after the backslash: one of \\\\ \\\" \\' \\a \\b \\f \\n \\r \\t \\v, \
     \\uHHHH, \\xHH, or an octal number up to \\377";
const ARGUMENTS: &str = "an opening parenthesis, as in hasPrefix(attributes.KEY, \"PREFIX\")";
const ARGUMENT: &str = "attributes.KEY, as in hasPrefix(attributes.KEY, \"PREFIX\")";
const COMMA: &str = "a comma, as in hasPrefix(attributes.KEY, \"PREFIX\")";
const CLOSING_ARGUMENTS: &str = "a closing parenthesis after the prefix";

impl<'a> Parser<'a> {
    /// Parses a text of at most `bytes_max` bytes.
    pub(super) fn parse(text: &'a str, bytes_max: usize) -> Result<Expression, FilterError> {
        let mut parser = Self { text, at: 0, conditions: 0 };
        if bytes_max < text.len() {
            parser.at = text.floor_char_boundary(bytes_max);
            return parser.expected(TOO_LONG);
        }
        let expression = parser.expression(0)?;
        if parser.rest().is_empty() { Ok(expression) } else { parser.expected(CONTINUATION) }
    }

    /// Reads operands and the operators between them, up to a closing parenthesis or the end.
    fn expression(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut operands = vec![self.operand(depth)?];
        let mut joined_by = None;
        while let Some(operator) = self.peek_operator() {
            if *joined_by.get_or_insert(operator) != operator {
                return self.expected(MIXED);
            }
            self.take(if operator == Operator::And { "AND" } else { "OR" });
            operands.push(self.operand(depth)?);
        }
        Ok(match joined_by {
            Some(Operator::Or) => Expression::any(operands),
            _ => Expression::all(operands),
        })
    }

    fn peek_operator(&mut self) -> Option<Operator> {
        match self.word() {
            "AND" => Some(Operator::And),
            "OR" => Some(Operator::Or),
            _ => None,
        }
    }

    /// Reads a condition, a negated operand, or an expression in parentheses.
    fn operand(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if FILTER_DEPTH_MAX < depth {
            return self.expected(TOO_DEEP);
        }
        if self.take("-") || self.word() == "NOT" && self.take("NOT") {
            return self.operand(depth + 1).map(Expression::not);
        }
        if self.take("(") {
            let expression = self.expression(depth + 1)?;
            return self.require(")", CLOSING).map(|()| expression);
        }
        let word = self.word();
        if !matches!(word, "attributes" | "hasPrefix") {
            return self.expected(CONDITION);
        }
        if FILTER_CONDITIONS_MAX <= self.conditions {
            return self.expected(TOO_MANY);
        }
        self.conditions += 1;
        self.take(word);
        if word == "hasPrefix" { self.has_prefix() } else { self.attribute() }
    }

    /// Reads what follows `attributes`.
    fn attribute(&mut self) -> Result<Expression, FilterError> {
        if self.take(":") {
            return Ok(Expression::Has(self.key()?));
        }
        self.require(".", MEMBER)?;
        let key = self.key()?;
        let is_negated = self.take("!=");
        if !is_negated {
            self.require("=", COMPARISON)?;
        }
        let equals = Expression::Equals(key, self.quoted(VALUE)?);
        Ok(if is_negated { equals.not() } else { equals })
    }

    /// Reads what follows `hasPrefix`.
    fn has_prefix(&mut self) -> Result<Expression, FilterError> {
        self.require("(", ARGUMENTS)?;
        if self.word() != "attributes" {
            return self.expected(ARGUMENT);
        }
        self.take("attributes");
        self.require(".", ARGUMENT)?;
        let key = self.key()?;
        self.require(",", COMMA)?;
        let prefix = self.quoted(VALUE)?;
        self.require(")", CLOSING_ARGUMENTS)?;
        Ok(Expression::HasPrefix(key, prefix))
    }

    fn key(&mut self) -> Result<Box<str>, FilterError> {
        if self.rest().starts_with('"') {
            return self.quoted(KEY);
        }
        let key = self.leading(is_key_char);
        if key.is_empty() {
            return self.expected(KEY);
        }
        self.at += key.len();
        let next = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        if next.is_some_and(|c| !c.is_ascii_whitespace() && !"=!,()".contains(c)) {
            return self.expected(QUOTES);
        }
        Ok(key.into())
    }

    /// Reads a text in double quotes.
    fn quoted(&mut self, expected: &'static str) -> Result<Box<str>, FilterError> {
        self.require("\"", expected)?;
        let mut text = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            match rest.chars().next() {
                None => return self.expected(CLOSING_QUOTE),
                Some('"') => {
                    self.at += 1;
                    return Ok(text.into());
                }
                Some('\\') => {
                    let escape = rest.get(1..).and_then(unescape);
                    let Some((c, len)) = escape else { return self.expected(ESCAPE) };
                    text.push(c);
                    self.at += 1 + len;
                }
                Some(c) => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    /// Skips white space and returns the text that was not read.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_ascii_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    /// Returns the characters at the beginning of the rest for which `is_part` is true.
    fn leading(&mut self, is_part: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        rest.split_once(|c| !is_part(c)).map_or(rest, |(leading, _)| leading)
    }

    /// Returns the letters at the beginning of the rest.
    fn word(&mut self) -> &'a str {
        self.leading(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// Reads `token` if it is next. Returns false otherwise.
    fn take(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn require(&mut self, token: &str, expected: &'static str) -> Result<(), FilterError> {
        if self.take(token) { Ok(()) } else { self.expected(expected) }
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, FilterError> {
        let read = self.text.get(..self.at).unwrap_or(self.text);
        Err(FilterError { position: read.chars().count() + 1, expected })
    }
}
