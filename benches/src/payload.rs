//! The text of an event: who sent it, as what, when, and padding.

use std::io::Write as _;

/// What an event says about itself. Events of one publisher's connection have an order, since it
/// has one request outstanding; those of two connections have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Payload {
    pub topic: u32,
    /// The publisher's connection.
    pub publisher: u32,
    /// Counts this publisher's messages to this topic, from 1.
    pub sequence: u32,
    /// Counts all messages of the run, from 0.
    pub message: u32,
    /// When its request was written.
    pub sent_ns: u64,
}

/// The five numbers at their longest, with the blanks after them.
pub const SIZE_MIN: usize = 4 * 11 + 21;

impl Payload {
    /// Appends the text, padded to `size`.
    pub fn write(&self, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + size;
        let Self { topic, publisher, sequence, message, sent_ns } = self;
        // Writing to a vector cannot fail.
        let _ = write!(out, "{topic} {publisher} {sequence} {message} {sent_ns} ");
        out.resize(end, b'.');
    }

    /// Reads a text. None if it is not one, or not of that size.
    pub fn read(text: &[u8], size: usize) -> Option<Self> {
        if text.len() != size {
            return None;
        }
        let mut numbers = Numbers(text);
        let payload = Self {
            topic: numbers.next()? as u32,
            publisher: numbers.next()? as u32,
            sequence: numbers.next()? as u32,
            message: numbers.next()? as u32,
            sent_ns: numbers.next()?,
        };
        // The padding is looked at where a wrong length or a mixture would show.
        (numbers.0.first().is_none_or(|byte| *byte == b'.')
            && numbers.0.last().is_none_or(|byte| *byte == b'.'))
        .then_some(payload)
    }
}

struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    /// A number and the blank after it.
    fn next(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate() {
            match byte {
                b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
                b' ' if 0 < at => {
                    self.0 = &self.0[at + 1..];
                    return Some(number);
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let payload = Payload {
            topic: 9_999,
            publisher: 3,
            sequence: 7,
            message: 70,
            sent_ns: u64::MAX / 10,
        };
        let mut text = Vec::new();
        payload.write(200, &mut text);
        assert_eq!(text.len(), 200);
        assert_eq!(Payload::read(&text, 200), Some(payload));
        assert_eq!(Payload::read(&text[..199], 200), None);
        assert_eq!(Payload::read(&text[1..], 200), None);
        assert_eq!(Payload::read(&[b'x'; 200], 200), None);
    }
}
