//! Keys and values in the text of a filter: quotes and escapes.

use std::fmt::{self, Write as _};

/// Key of an attribute, written with quotes only if it needs them.
pub(super) struct Key<'a>(pub(super) &'a str);

/// Text in double quotes.
pub(super) struct Text<'a>(pub(super) &'a str);

/// Returns true for the characters of a key that needs no quotes.
pub(super) fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_key_char) {
            return f.write_str(self.0);
        }
        Text(self.0).fmt(f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// Reads the escape after a backslash. Returns the character that it stands for, and its length in
/// bytes. `None` if it is no escape.
///
/// `\xHH` and octal escapes stand for the character with this number, as in most languages, and not
/// for a byte of UTF-8. A pair of `\uHHHH` can be one character, as in JSON.
pub(super) fn unescape(after: &str) -> Option<(char, usize)> {
    let hex = |from: usize, len: usize| {
        let digits = after.get(from..from + len)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let single = match after.chars().next()? {
        c @ ('"' | '\\' | '\'') => c,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' => return Some((char::from_u32(hex(1, 2)?)?, 3)),
        'u' => {
            let first = hex(1, 4)?;
            if let Some(c) = char::from_u32(first) {
                return Some((c, 5));
            }
            let second = u16::try_from(hex(7, 4).filter(|_| after.get(5..7) == Some("\\u"))?);
            let pair = [u16::try_from(first).ok()?, second.ok()?];
            return Some((char::decode_utf16(pair).next()?.ok()?, 11));
        }
        '0'..='7' => {
            let is_octal = |byte: &u8| (b'0'..=b'7').contains(byte);
            let len = after.bytes().take(3).take_while(is_octal).count();
            let number = u8::from_str_radix(after.get(..len)?, 8).ok()?;
            return Some((char::from(number), len));
        }
        _ => return None,
    };
    Some((single, 1))
}
