//! The blocks of a stream as `EventSource` takes them: an id counts once its block is whole, so
//! that a stream which is cut within an event gets it again.

use memchr::memmem;

/// A block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    pub event: &'a [u8],
    pub data: Option<&'a [u8]>,
    pub id: Option<&'a [u8]>,
    pub retry_ms: Option<u64>,
}

/// What has come in of the block that is not whole yet.
#[derive(Debug, Default)]
pub struct Blocks(Vec<u8>);

impl Blocks {
    pub fn feed(&mut self, input: &[u8], seen: &mut impl FnMut(&Block<'_>)) {
        let mut held = std::mem::take(&mut self.0);
        let mut rest = if held.is_empty() {
            input
        } else {
            held.extend_from_slice(input);
            &held
        };
        while let Some(at) = memmem::find(rest, b"\n\n") {
            seen(&Block::of(&rest[..at]));
            rest = &rest[at + 2..];
        }
        self.0 = rest.to_vec();
    }
}

impl<'a> Block<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut block = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match name {
                b"event" => block.event = value,
                // Nobody sends two lines; the second one's length will not do.
                b"data" => block.data = Some(value),
                b"id" => block.id = Some(value),
                b"retry" => block.retry_ms = number(value),
                _ => {}
            }
        }
        block
    }
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_when_it_is_whole() {
        let sample = b": hi\n\nretry: 5\nid: 1-1\nevent: stream-open\ndata: {}\n\nid: 1-2\ndata: x";
        for at in 0..sample.len() {
            let (mut blocks, mut found) = (Blocks::default(), Vec::new());
            for part in [&sample[..at], &sample[at..]] {
                blocks.feed(part, &mut |block| {
                    found.push((block.id.map(<[u8]>::to_vec), block.retry_ms));
                });
            }
            assert_eq!(found, [(None, None), (Some(b"1-1".to_vec()), Some(5))], "split at {at}");
            blocks.feed(b"y\n\n", &mut |block| assert_eq!(block.data, Some(b"xy".as_slice())));
        }
    }
}
