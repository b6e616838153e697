//! A reader's filter and the attributes of a message, against a rewriting of the text: conditions
//! become `T` or `F`, and the text shrinks until one of them is left.
//!
//! An input is a filter, and on further lines attributes.

use std::collections::BTreeMap;

use stream_events::model::filter::{
    FILTER_BYTES_MAX, FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, Filter,
};

/// See the module.
pub fn run(input: &[u8]) -> &'static str {
    let Ok(input) = str::from_utf8(input) else { return "no-text" };
    let (text, attributes) = input.split_once('\n').unwrap_or((input, ""));
    let attributes: BTreeMap<_, _> =
        attributes.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
    let attribute = |key: &str| attributes.get(key).copied();
    let wanted = Some(text).filter(|text| text.len() <= FILTER_BYTES_MAX);
    let wanted = wanted.and_then(|text| signs(text, &attributes)).and_then(|signs| value(&signs));
    match Filter::parse(text) {
        Err(err) => {
            assert_eq!(wanted, None, "{text:?}: {err}");
            let end = text.chars().count() + 1;
            assert!((1..=end).contains(&err.position), "{text:?}: {err}");
            "refused"
        }
        Ok(filter) => {
            let shown = filter.matches(attribute);
            assert_eq!(wanted, Some(shown), "{text:?}");
            let again = Filter::parse_canonical(filter.as_str()).expect("it is a filter");
            assert_eq!((&again, again.matches(attribute)), (&filter, shown));
            let both = filter.and(&again);
            assert!(both == filter && both.is_within(&filter), "{text:?}");
            if shown { "shown" } else { "hidden" }
        }
    }
}

/// Makes one character of each operator, parenthesis and condition. `None` if that is not possible.
fn signs(text: &str, attributes: &BTreeMap<&str, &str>) -> Option<String> {
    let mut signs = String::new();
    let mut rest = text.trim_ascii_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let mut after = after;
        signs.push(match (word, first) {
            ("AND", _) => '&',
            ("OR", _) => '|',
            ("NOT", _) => '!',
            ("attributes", _) => {
                let (is_true, end) = attribute(after, attributes)?;
                after = end;
                if is_true { 'T' } else { 'F' }
            }
            ("hasPrefix", _) => {
                let start = next(next(after, "(")?, "attributes")?;
                let (key, end) = key(next(start, ".")?)?;
                let (prefix, end) = quoted(next(end, ",")?)?;
                after = next(end, ")")?;
                let found = attributes.get(&*key).map(|value| value.strip_prefix(&*prefix));
                if found.flatten().is_some() { 'T' } else { 'F' }
            }
            ("", sign @ ('(' | ')' | '-')) => {
                after = &rest[1..];
                if sign == '-' { '!' } else { sign }
            }
            _ => return None,
        });
        rest = after.trim_ascii_start();
    }
    Some(signs)
}

fn next<'a>(text: &'a str, token: &str) -> Option<&'a str> {
    text.trim_ascii_start().strip_prefix(token)
}

/// Reads what follows `attributes`.
fn attribute<'a>(text: &'a str, attributes: &BTreeMap<&str, &str>) -> Option<(bool, &'a str)> {
    if let Some(after) = next(text, ":") {
        let (key, after) = key(after)?;
        return Some((attributes.contains_key(&*key), after));
    }
    let (key, after) = key(next(text, ".")?)?;
    let not = next(after, "!");
    let equals = match not {
        Some(after) => after.strip_prefix('=')?,
        None => next(after, "=")?,
    };
    let (value, after) = quoted(equals)?;
    Some(((attributes.get(&*key) == Some(&&*value)) == not.is_none(), after))
}

fn key(text: &str) -> Option<(String, &str)> {
    let text = text.trim_ascii_start();
    if text.starts_with('"') {
        return quoted(text);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let (key, after) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    let ends = after.chars().next().is_none_or(|c| "=!,() \t\n\r\u{c}".contains(c));
    (ends && !key.is_empty()).then(|| (key.to_owned(), after))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let text = next(text, "\"")?;
    // UTF-16, since an escape can be one half of a character.
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let mut number = |len: usize, radix: u32, from: usize| {
            let digits = text.get(from..from + len)?;
            chars.by_ref().take(from + len - at - 1).for_each(drop);
            let all = digits.chars().all(|digit| digit.is_digit(radix));
            all.then(|| u16::from_str_radix(digits, radix).ok()).flatten()
        };
        match c {
            '"' => return Some((String::from_utf16(&units).ok()?, &text[at + 1..])),
            '\\' => units.push(match text[at + 1..].chars().next()? {
                'x' => number(2, 16, at + 2)?,
                'u' => number(4, 16, at + 2)?,
                '0'..='7' => {
                    let octal = text[at + 1..].chars().take(3);
                    let len = octal.take_while(|digit| digit.is_digit(8)).count();
                    number(len, 8, at + 1).filter(|number| *number < 256)?
                }
                named => {
                    chars.next();
                    let known = "\"\\'abfnrtv".find(named)?;
                    u16::from(*b"\"\\'\x07\x08\x0c\n\r\t\x0b".get(known)?)
                }
            }),
            other => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
        }
    }
    None
}

/// Shrinks the text to one `T` or `F`. `None` if it is no expression or exceeds a limit.
fn value(signs: &str) -> Option<bool> {
    let conditions = signs.matches(['T', 'F']).count();
    if FILTER_CONDITIONS_MAX < conditions || FILTER_DEPTH_MAX < depth(signs) {
        return None;
    }
    let mut signs = format!("({signs})");
    loop {
        let before = signs.len();
        for (old, new) in [("!T", "F"), ("!F", "T")] {
            signs = signs.replace(old, new);
        }
        if signs.len() < before {
            continue;
        }
        // The innermost parentheses: they hold conditions, joined by operators of one kind.
        if let Some(end) = signs.find(')') {
            let start = signs[..end].rfind('(')?;
            let inner = &signs[start + 1..end];
            let (operators, operands): (Vec<_>, Vec<_>) =
                inner.char_indices().partition(|(at, _)| at % 2 == 1);
            let all = |list: &[(usize, char)], wanted: char| list.iter().all(|(_, c)| *c == wanted);
            let is_true = if all(&operators, '&') {
                all(&operands, 'T')
            } else if all(&operators, '|') {
                !all(&operands, 'F')
            } else {
                return None;
            };
            let is_whole = operators.len() + 1 == operands.len();
            if !is_whole || operands.iter().any(|(_, c)| !"TF".contains(*c)) {
                return None;
            }
            signs.replace_range(start..=end, if is_true { "T" } else { "F" });
        }
        match &*signs {
            "T" => return Some(true),
            "F" => return Some(false),
            _ if signs.len() == before => return None,
            _ => {}
        }
    }
}

/// Largest number of parentheses and negations around a condition.
fn depth(signs: &str) -> usize {
    let (mut open, mut deepest) = (Vec::new(), 0);
    for sign in signs.chars() {
        match sign {
            '!' | '(' => open.push(sign),
            'T' | 'F' => deepest = deepest.max(open.len()),
            ')' => while open.pop().is_some_and(|sign| sign != '(') {},
            _ => {}
        }
        if matches!(sign, 'T' | 'F' | ')') {
            while open.pop_if(|sign| *sign == '!').is_some() {}
        }
    }
    deepest
}
